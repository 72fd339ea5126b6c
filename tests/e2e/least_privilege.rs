//! Who may do what: as the API server answers for somebody, and as it answers somebody.

use crate::support::kubectl::Kubectl;

/// Whether somebody may: who, verb, resource, namespace. Behind a resource stands a name, after a slash, or one of its
/// subresources, after a plus.
pub type Row = (&'static str, &'static str, &'static str, &'static str, bool);

/// What nobody of hoist's own may do: a verb, a resource.
const NEVER: [(&str, &str); 9] = [
    ("list", "secrets"),
    ("create", "pods"),
    ("create", "pods+exec"),
    ("create", "serviceaccounts+token"),
    ("create", "persistentvolumes"),
    ("get", "nodes+proxy"),
    ("escalate", "clusterroles.rbac.authorization.k8s.io"),
    ("update", "certificatesigningrequests.certificates.k8s.io+approval"),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io"),
];

/// Asks the API server about each of them, and then as each of them.
pub fn nobody_may_do_more_than_it_needs(kubectl: &Kubectl, who: &[&str], rows: &[Row]) {
    for who in who {
        for (verb, resource) in NEVER {
            assert!(!may(kubectl, who, verb, resource, "kube-system"), "{who} may {verb} {resource}");
        }
        for act in [
            &["get", "secrets", "--all-namespaces"][..],
            &["delete", "pods", "--all", "-n", "default", "--dry-run=server"],
            &["create", "token", "default", "-n", "kube-system"],
            &["label", "nodes", "--all", "tried=true", "--dry-run=server"],
        ] {
            let ended = kubectl.run(&[act, &["--as", who]].concat());
            assert!(ended.code == Some(1) && ended.stderr.to_lowercase().contains("forbidden"), "{who}: {ended}");
        }
    }
    for &(who, verb, resource, namespace, expected) in rows {
        assert_eq!(may(kubectl, who, verb, resource, namespace), expected, "{who}: {verb} {resource} in {namespace}");
    }
}

fn may(kubectl: &Kubectl, who: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, sub) = resource.split_once('+').unwrap_or((resource, ""));
    let sub = format!("--subresource={sub}");
    let ended = kubectl.run(&["auth", "can-i", verb, resource, &sub, "--as", who, "-n", namespace]);
    match ended.stdout.trim() {
        "yes" => true,
        said if said.starts_with("no") => false,
        _ => panic!("{ended}"),
    }
}
