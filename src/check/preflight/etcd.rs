//! An external etcd.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::net::TcpStream;

use super::{Facts, network};
use crate::base::error::Finding;
use crate::base::probe::{Answer, Probe};
use crate::desired::config::Etcd;

/// How long a member may take to answer: less than a check may.
const LIMIT: Duration = Duration::from_millis(700);
/// kubeadm's least version.
const LEAST: (u32, u32, u32) = (3, 5, 24);

pub(super) async fn external(facts: &Facts) -> Vec<Finding> {
    let Etcd::External { endpoints, .. } = &facts.cluster.etcd else { return Vec::new() };
    let looks = endpoints.iter().map(|endpoint| async move {
        let problem = problem(facts, endpoint).await?;
        Some(
            Finding::new(endpoint, problem)
                .remedy("start it, or let this machine reach it; etcd.external.endpoints of cluster.yaml names it"),
        )
    });
    soften(join_all(looks).await)
}

/// While one member answers, the others only warn.
fn soften(results: Vec<Option<Finding>>) -> Vec<Finding> {
    let one_answers = results.iter().any(Option::is_none);
    let soften = |finding: Finding| if one_answers { finding.warning() } else { finding };
    results.into_iter().flatten().map(soften).collect()
}

async fn problem(facts: &Facts, endpoint: &str) -> Option<String> {
    let (host, port) = split(endpoint);
    let Ok(address) = host.parse::<IpAddr>() else {
        // Its certificate bears the name: whether it fits is for the API server to say.
        let address = network::resolve(&host).await.unwrap_or_default().into_iter().next();
        let Some(address) = address else { return Some(format!("this machine does not resolve the name {host}")) };
        return match tokio::time::timeout(LIMIT, TcpStream::connect((address, port))).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(format!("cannot be reached: {error}")),
            Err(_) => Some(format!("has not answered within {} ms", LIMIT.as_millis())),
        };
    };
    let tls = facts.assets.tls();
    let file = |path: &str| tls.get(path).map(Vec::as_slice).unwrap_or_default();
    let probe =
        Probe::with_identity(file("etcd/ca.crt"), file("apiserver-etcd-client.crt"), file("apiserver-etcd-client.key"));
    match probe {
        Ok(probe) => judge(&probe.get(SocketAddr::new(address, port), "/version", LIMIT).await),
        Err(error) => Some(error.to_string()),
    }
}

/// Host and port of a client URL.
fn split(endpoint: &str) -> (String, u16) {
    let rest = endpoint.trim_start_matches("https://").trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (rest, None),
    };
    (host.trim_matches(['[', ']']).to_owned(), port.unwrap_or(443))
}

fn judge(answer: &Answer) -> Option<String> {
    let Answer::Http { status: 200, body } = answer else { return Some(format!("does not answer: {answer}")) };
    let said: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let version = said.get("etcdserver").and_then(serde_json::Value::as_str).unwrap_or_default();
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse().ok());
    let version = (|| Some((numbers.next()?, numbers.next()?, numbers.next()?)))();
    match version {
        Some(version) if version >= LEAST => None,
        Some((major, minor, patch)) => {
            let (a, b, c) = LEAST;
            Some(format!("is etcd {major}.{minor}.{patch}, and Kubernetes needs {a}.{b}.{c} or newer"))
        }
        None => Some(format!("does not say which version of etcd it is: {answer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Severity;

    #[test]
    fn its_version_is_read() {
        let judge = |body: &str| judge(&Answer::Http { status: 200, body: body.into() });
        assert_eq!(judge(r#"{"etcdserver":"3.6.1","etcdcluster":"3.6.0"}"#), None);
        assert_eq!(judge(r#"{"etcdserver":"3.5.24-rc.1"}"#), None);
        assert!(judge(r#"{"etcdserver":"3.5.9"}"#).unwrap().starts_with("is etcd 3.5.9, and Kubernetes needs 3.5.24"));
        assert!(judge("hello").unwrap().starts_with("does not say which version"));
        assert_eq!(super::judge(&Answer::Refused).unwrap(), "does not answer: connection refused");
    }

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        assert_eq!(split("https://192.0.2.1:2379"), ("192.0.2.1".into(), 2379));
        assert_eq!(split("https://[fd00::1]:2379/"), ("fd00::1".into(), 2379));
        assert_eq!(split("https://[fd00::1]"), ("fd00::1".into(), 443));
        assert_eq!(split("https://etcd.example.com"), ("etcd.example.com".into(), 443));
    }

    #[test]
    fn one_that_answers_is_enough() {
        let away = Finding::new("a", "is away");
        let severities = |results| soften(results).iter().map(|finding| finding.severity).collect::<Vec<_>>();
        assert_eq!(severities(vec![Some(away.clone()), None]), [Severity::Warning]);
        assert_eq!(severities(vec![Some(away.clone()), Some(away)]), [Severity::Error, Severity::Error]);
    }
}
