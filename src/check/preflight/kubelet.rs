//! The kubelet: whether it can be run, and whether its version fits.

use tokio::process::Command;

use super::Facts;
use crate::base::error::Finding;
use crate::desired::config::{Version, version};
use crate::node::kubelet;

/// How many minor versions a kubelet may be older than the API server that it talks to.
const SKEW: u32 = 3;
/// The oldest kubelet that hoist is tested with.
const OLDEST: (u32, u32) = (1, 34);

pub(super) async fn service(facts: &Facts) -> Vec<Finding> {
    let found = kubelet::unit_problem(&facts.host).await;
    let found = found.map(|finding| Finding {
        place: String::new(),
        message: format!("{}: {}", finding.place, finding.message),
        ..finding
    });
    found.into_iter().collect()
}

pub(super) async fn version(facts: &Facts) -> Vec<Finding> {
    let Some(program) = kubelet::program(&facts.host).await else {
        // Where systemd runs, its unit's check says so.
        let elsewhere = Finding::new("", "there is no kubelet on PATH, so its version is not known").remedy(
            "it must be of a minor version that the API server serves, and be run as kubelet/kubelet.service says",
        );
        return if kubelet::is_systemd(&facts.host) { Vec::new() } else { vec![elsewhere.warning()] };
    };
    let place = program.display().to_string();
    let output = Command::new(&program).arg("--version").kill_on_drop(true).output().await;
    let said = match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return vec![Finding::new(place, format!("cannot be run: {error}")).remedy("install it again")],
    };
    judge(&place, said.trim(), facts.cluster.kubernetes_version).into_iter().collect()
}

fn judge(place: &str, said: &str, server: Version) -> Option<Finding> {
    let Some((major, minor)) = minor_version(said) else {
        let said: String = said.lines().next().unwrap_or_default().chars().take(80).collect();
        let message = format!("does not say its version by --version, but {said:?}");
        return Some(Finding::new(place, message).remedy("install the kubelet again"));
    };
    let kubelet = said.trim_start_matches("Kubernetes ");
    let (message, remedy) = if (major, minor) > (server.major, server.minor) {
        (
            format!("is {kubelet}, newer than the API server will be, {server}"),
            "render with a kubernetesVersion that is not older than the kubelet, or install an older kubelet",
        )
    } else if major < server.major || minor + SKEW < server.minor {
        (
            format!("is {kubelet}, more than {SKEW} minor versions older than the API server will be, {server}"),
            "install a kubelet of the API server's minor version",
        )
    } else if (major, minor) < OLDEST {
        let message = format!("is {kubelet}; hoist has been run with kubelets from {}.{} on", OLDEST.0, OLDEST.1);
        return Some(Finding::new(place, message).remedy("install a newer kubelet").warning());
    } else {
        return None;
    };
    Some(Finding::new(place, message).remedy(remedy))
}

/// Major and minor version of `Kubernetes v1.36.3`.
fn minor_version(said: &str) -> Option<(u32, u32)> {
    let (major, minor, _) = version::numbers(said.strip_prefix("Kubernetes ")?)?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_is_not_newer_and_not_much_older_than_the_api_server() {
        let server = Version { major: 1, minor: 36, patch: 3 };
        for (said, expected) in [
            ("Kubernetes v1.36.9", None),
            ("Kubernetes v1.36.0-rc.1+abc", None),
            ("Kubernetes v1.34.0", None),
            ("Kubernetes v1.33.0", Some("k: warning: is v1.33.0; hoist has been run with kubelets from 1.34 on")),
            ("Kubernetes v1.37.0", Some("k: is v1.37.0, newer than the API server will be, v1.36.3")),
            ("Kubernetes v2.0.0", Some("k: is v2.0.0, newer than")),
            ("Kubernetes v1.32.9", Some("k: is v1.32.9, more than 3 minor versions older than")),
            ("", Some("k: does not say its version by --version, but \"\"")),
            ("kubelet 7\nCopyright", Some("k: does not say its version by --version, but \"kubelet 7\"")),
        ] {
            let found = judge("k", said, server).map(|finding| finding.to_string());
            match expected {
                None => assert_eq!(found, None, "{said}"),
                Some(text) => assert!(found.as_ref().is_some_and(|found| found.starts_with(text)), "{said}: {found:?}"),
            }
        }
    }
}
