use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use super::*;

/// A request for `names` by the kubelet of w1; `subject` is CN and O.
fn asked(names: &[&str], subject: (&str, &str)) -> Asked {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, subject.1);
    params.distinguished_name.push(DnType::CommonName, subject.0);
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    Asked {
        username: "system:node:w1".into(),
        groups: vec!["system:nodes".into(), "system:authenticated".into()],
        usages: vec!["server auth".into(), "digital signature".into()],
        request: request.into_bytes(),
    }
}

fn addresses(of: &[(&str, &str)]) -> Addresses {
    of.iter().map(|(kind, value)| ((*kind).to_owned(), (*value).to_owned())).collect()
}

fn nodes() -> BTreeMap<String, Addresses> {
    let w1 = [("Hostname", "w1"), ("InternalIP", "10.0.0.7"), ("ExternalIP", "192.0.2.7"), ("InternalDNS", "W1.lan")];
    let c1 = [("Hostname", "c1"), ("InternalIP", "10.0.0.1")];
    let w2 = [("Hostname", "w2"), ("InternalIP", "10.0.0.8")];
    BTreeMap::from([
        ("w1".to_owned(), addresses(&w1)),
        ("w2".to_owned(), addresses(&w2)),
        ("c1".to_owned(), addresses(&c1)),
    ])
}

fn reserved() -> Reserved {
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrolPlaneEndpoint: api.example.com\napiServer: {certSANs: ['*.api.example.com']}\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
    let cluster = crate::desired::config::parse("cluster.yaml", text, std::path::Path::new("/")).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let pki = pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    Reserved::of(&cluster, &pki.files["apiserver.crt"])
}

const OWN: (&str, &str) = ("system:node:w1", "system:nodes");

#[track_caller]
fn refused(asked: &Asked, nodes: &BTreeMap<String, Addresses>, word: &str) {
    let verdict = judge(asked, nodes, &reserved());
    assert!(matches!(&verdict, Verdict::Refuse(why) if why.contains(word)), "{word}: {verdict:?}");
}

#[test]
fn a_kubelet_has_its_own_names_and_addresses() {
    for names in [&["w1", "10.0.0.7"][..], &["10.0.0.7"], &["w1"], &["w1.lan", "192.0.2.7"], &["W1", "10.0.0.7"]] {
        assert_eq!(judge(&asked(names, OWN), &nodes(), &reserved()), Verdict::Approve, "{names:?}");
    }
    let mut with = asked(&["w1"], OWN);
    with.usages.push("key encipherment".into());
    assert_eq!(judge(&with, &nodes(), &reserved()), Verdict::Approve);
}

#[test]
fn a_controllers_kubelet_has_its_own_although_the_api_server_is_there() {
    let mut own = asked(&["c1", "10.0.0.1"], ("system:node:c1", "system:nodes"));
    own.username = "system:node:c1".into();
    assert_eq!(judge(&own, &nodes(), &reserved()), Verdict::Approve);
}

/// A label has made c2 a controller since the copy was written.
#[test]
fn the_address_of_a_controller_that_a_label_has_made_is_its_own() {
    let [c2, c3] = [2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
    let now = reserved().and_now([("c2".to_owned(), c2)], [c2, c3]);
    let nodes = |name: &str, address: &str| {
        BTreeMap::from([(name.to_owned(), addresses(&[("Hostname", name), ("InternalIP", address)]))])
    };
    let verdict = |name: &str, address: &str| {
        let user = format!("system:node:{name}");
        let mut asked = asked(&[name, address], (&user, "system:nodes"));
        asked.username = user;
        judge(&asked, &nodes(name, address), &now)
    };
    assert_eq!(verdict("c2", "10.0.0.2"), Verdict::Approve);
    assert!(matches!(verdict("w9", "10.0.0.2"), Verdict::Refuse(_)));
    assert!(matches!(verdict("w9", "10.0.0.3"), Verdict::Refuse(_)), "its Node was deleted, and it serves still");
    assert_eq!(verdict("w9", "10.0.0.9"), Verdict::Approve);
}

#[test]
fn what_the_node_does_not_say_is_waited_for() {
    for names in [&["w1", "10.0.0.9"][..], &["other"]] {
        let verdict = judge(&asked(names, OWN), &nodes(), &reserved());
        assert!(matches!(verdict, Verdict::Wait(_)), "{names:?}: {verdict:?}");
    }
    let mut without = nodes();
    without.remove("w1");
    assert_eq!(
        judge(&asked(&["w1"], OWN), &without, &reserved()),
        Verdict::Wait("there is no Node w1".into()),
        "one that was deleted gets none"
    );
}

#[test]
fn nobody_has_what_is_anothers() {
    // As a kubelet could write it that is not to be trusted.
    let lies = |kind: &str, value: &str| {
        let mut nodes = nodes();
        nodes.get_mut("w1").unwrap().push((kind.into(), value.into()));
        nodes
    };
    refused(&asked(&["w2"], OWN), &lies("InternalDNS", "w2"), "the Node w2 has w2");
    refused(&asked(&["10.0.0.8"], OWN), &lies("InternalIP", "10.0.0.8"), "the Node w2 has 10.0.0.8");
    for name in [
        "kubernetes",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "api.example.com",
        "x.api.example.com",
        "webhook.default.svc",
        "webhook.default.svc.cluster.local",
        "localhost",
        "c1",
    ] {
        refused(&asked(&[name], OWN), &lies("InternalDNS", name), "the API server");
    }
    for address in ["10.0.0.1", "10.96.0.1", "127.0.0.1", "::1", "0.0.0.0"] {
        refused(&asked(&[address], OWN), &lies("InternalIP", address), "the API server");
    }
}

#[test]
fn who_asks_must_be_the_kubelet_and_ask_for_no_more() {
    refused(&asked(&["w1"], ("system:node:w2", "system:nodes")), &nodes(), "subject CN=system:node:w2");
    refused(&asked(&["w1"], ("system:node:w1", "system:masters")), &nodes(), "O=system:masters");
    refused(&asked(&[], OWN), &nodes(), "the request");
    let edited = |edit: &dyn Fn(&mut Asked)| {
        let mut asked = asked(&["w1"], OWN);
        edit(&mut asked);
        asked
    };
    refused(&edited(&|asked| asked.username = "alice".into()), &nodes(), "alice is not a kubelet");
    refused(&edited(&|asked| asked.username = "system:node:".into()), &nodes(), "is not a kubelet");
    refused(&edited(&|asked| asked.groups.clear()), &nodes(), "group system:nodes");
    refused(&edited(&|asked| asked.usages.push("client auth".into())), &nodes(), "client auth");
    refused(&edited(&|asked| asked.usages = vec!["server auth".into()]), &nodes(), "usages server auth");
    refused(&edited(&|asked| asked.request = b"?".to_vec()), &nodes(), "is not PEM text");
}
