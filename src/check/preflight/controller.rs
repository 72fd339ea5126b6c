//! Which of the cluster's controllers this machine is.

use std::net::IpAddr;

use crate::base::error::{Error, Finding, Result};
use crate::desired::config::{Cluster, Controller};

/// Which of the cluster's controllers this machine is: the one called `name`, or the one whose address it has.
///
/// # Errors
/// A machine that is none of them, or more than one.
pub fn controller<'a>(cluster: &'a Cluster, name: Option<&str>, own: &[IpAddr]) -> Result<&'a Controller> {
    let known =
        || cluster.controllers.iter().map(|c| format!("{} ({})", c.name, c.address)).collect::<Vec<_>>().join(", ");
    let refuse = |place: &str, message: String, remedy: &str| {
        Err(Error::Preflight(vec![Finding::new(place, message).remedy(remedy)]))
    };
    if let Some(name) = name {
        let Some(found) = cluster.controllers.iter().find(|c| c.name == name) else {
            return refuse(
                "--node-name",
                format!("no controller of cluster.yaml is called {name}; there are {}", known()),
                "name one of them",
            );
        };
        if !own.contains(&found.address) {
            let message = format!("no interface of this machine has {}, the address of {name}", found.address);
            return refuse(
                "cluster.yaml: controllers",
                message,
                "run it on that machine, or correct the address and render again",
            );
        }
        return Ok(found);
    }
    let mut here = cluster.controllers.iter().filter(|c| own.contains(&c.address));
    match (here.next(), here.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => {
            refuse("cluster.yaml: controllers", "several of them are this machine".into(), "say which with --node-name")
        }
        (None, _) => refuse(
            "cluster.yaml: controllers",
            format!("no interface of this machine has the address of one of them: {}", known()),
            "run it on a controller, or correct the address and render again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_controller_this_machine_is() {
        let cluster = super::super::testing::cluster("");
        for (name, own, expected) in [
            (None, "127.0.0.1 192.0.2.10 fd00::1", "c1"),
            (None, "192.0.2.11", "c2"),
            (Some("c2"), "192.0.2.11", "c2"),
            (Some("c2"), "192.0.2.10 192.0.2.11", "c2"),
            (
                None,
                "127.0.0.1 192.0.2.1",
                "cluster.yaml: controllers: no interface of this machine has the address of one of them: c1 (192.0.2.10), c2 (192.0.2.11)\n    run it on a controller, or correct the address and render again",
            ),
            (
                None,
                "192.0.2.10 192.0.2.11",
                "cluster.yaml: controllers: several of them are this machine\n    say which with --node-name",
            ),
            (
                Some("c3"),
                "192.0.2.10",
                "--node-name: no controller of cluster.yaml is called c3; there are c1 (192.0.2.10), c2 (192.0.2.11)\n    name one of them",
            ),
            (
                Some("c2"),
                "192.0.2.10",
                "cluster.yaml: controllers: no interface of this machine has 192.0.2.11, the address of c2\n    run it on that machine, or correct the address and render again",
            ),
        ] {
            let own: Vec<IpAddr> = own.split(' ').map(|address| address.parse().unwrap()).collect();
            let found = match controller(&cluster, name, &own) {
                Ok(controller) => controller.name.clone(),
                Err(Error::Preflight(findings)) if findings.len() == 1 => findings[0].to_string(),
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(found, expected);
        }
    }
}
