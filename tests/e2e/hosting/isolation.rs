//! What one tenant's certificates and tokens are worth elsewhere: nothing.

use std::net::SocketAddr;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Meta, NAMESPACE, OPERATOR, Tenant};
use crate::least_privilege::nobody_may_do_more_than_it_needs;
use crate::support::controller::SOON;
use crate::support::eventually;
use crate::support::http::{Client, Response, runtime};

/// What only somebody who is known may read, and only an admin.
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";

/// A certificate and its key.
struct Pair {
    what: &'static str,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A server and the CA that it shows.
struct Place {
    what: &'static str,
    ca: Vec<u8>,
    address: SocketAddr,
}

impl Meta {
    fn keys(&self, tenant: &str) -> Value {
        self.kubectl().get(&["-n", NAMESPACE, "secret", &format!("{tenant}-pki")])["data"].clone()
    }

    /// Every pair of a's, at b's API and etcd and at those of the meta cluster.
    pub(super) fn neither_reaches_the_other(&self, a: &Tenant, b: &Tenant) {
        let file = |data: &Value, name: &str| STANDARD.decode(data[name].as_str().unwrap()).unwrap();
        let (of_a, of_b) = (self.keys("a"), self.keys("b"));
        let tls = self.controller.cluster.assets.join("tls");
        let read = |name: &str| std::fs::read(tls.join(name)).unwrap();
        let pair = |what, name: &str| Pair {
            what,
            certificate: file(&of_a, &format!("{name}.crt")),
            key: file(&of_a, &format!("{name}.key")),
        };
        let node = self.controller.node.address;
        let places = [
            Place { what: "b's API", ca: file(&of_b, "ca.crt"), address: b.address() },
            Place { what: "the meta cluster's API", ca: read("ca.crt"), address: (node, 6443).into() },
        ];
        let own = Place { what: "a's API", ca: file(&of_a, "ca.crt"), address: a.address() };
        let admin =
            Pair { what: "a's admin", certificate: a.pem("client-certificate-data"), key: a.pem("client-key-data") };
        let (kubelet, status) = (a.kubelet(), 403);
        let pairs = [
            (admin, 200),
            (kubelet, status),
            (pair("what a's API servers show kubelets", "apiserver-kubelet-client"), 403),
        ];
        let mut tried = 0;
        for (pair, at_home) in &pairs {
            assert_eq!(ask(&own, Some(pair), SECRETS).unwrap().0, *at_home, "{} at home", pair.what);
            for place in &places {
                let answer = ask(place, Some(pair), SECRETS).unwrap();
                assert_eq!(answer.0, 401, "{} at {}: {answer:?}", pair.what, place.what);
                tried += 1;
            }
        }
        let token = a.kubectl.run(&["create", "token", "default"]).ok();
        let with = |place: &Place| {
            let client = Client::with_token(&place.ca, token.trim(), place.address);
            runtime().block_on(client.get(SECRETS)).unwrap().0
        };
        assert_eq!(with(&own), 403, "who it is is known at home");
        for place in &places {
            assert_eq!(with(place), 401, "a's service account at {}", place.what);
            tried += 1;
        }
        // etcd is asked from where it can be reached: from the meta cluster's node.
        let etcd_ip = |tenant: &str| {
            let service = self.kubectl().get(&["-n", NAMESPACE, "service", &format!("{tenant}-etcd")]);
            SocketAddr::new(service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap(), 2379)
        };
        let own = Place { what: "a's etcd", ca: file(&of_a, "etcd_ca.crt"), address: etcd_ip("a") };
        let client = pair("a's client of etcd", "apiserver-etcd-client");
        let places = [
            Place { what: "b's etcd", ca: file(&of_b, "etcd_ca.crt"), address: etcd_ip("b") },
            Place { what: "the meta cluster's etcd", ca: read("etcd/ca.crt"), address: (node, 2379).into() },
        ];
        let of_meta = Pair {
            what: "the meta cluster's client of etcd",
            certificate: read("apiserver-etcd-client.crt"),
            key: read("apiserver-etcd-client.key"),
        };
        assert_eq!(self.ask_inside(&own, Some(&client), "/health").unwrap().0, 200);
        assert_eq!(self.ask_inside(&places[1], Some(&of_meta), "/health").unwrap().0, 200);
        for place in &places {
            for pair in [Some(&client), Some(&pairs[0].0), Some(&pairs[1].0), None] {
                let who = pair.map_or("nobody", |pair| pair.what);
                let answer = self.ask_inside(place, pair, "/health");
                assert!(answer.is_err(), "{who} at {}: {answer:?}", place.what);
                tried += 1;
            }
        }
        assert!(
            self.ask_inside(&own, None, "/health").is_err(),
            "without a certificate nobody is let in at home either"
        );
        eprintln!("{tried} ways from one tenant to others were tried, and refused");
    }

    fn ask_inside(&self, place: &Place, pair: Option<&Pair>, path: &'static str) -> Result<Response, String> {
        let client = client(place, pair);
        self.controller.node.inside(move || runtime().block_on(client.get(path)))
    }

    pub(super) fn the_operator_may_no_more_than_it_needs(&self) {
        let rows = [
            (OPERATOR, "get", "secrets/a-pki", NAMESPACE, true),
            (OPERATOR, "get", "configmaps", NAMESPACE, true),
            (OPERATOR, "list", "secrets", NAMESPACE, false),
            (OPERATOR, "list", "configmaps", NAMESPACE, false),
            (OPERATOR, "get", "configmaps", "kube-system", false),
            (OPERATOR, "delete", "secrets", NAMESPACE, false),
            (OPERATOR, "delete", "services", NAMESPACE, false),
            (OPERATOR, "create", "pods", NAMESPACE, false),
            (OPERATOR, "create", "pods+exec", NAMESPACE, false),
            (OPERATOR, "create", "serviceaccounts+token", NAMESPACE, false),
            (OPERATOR, "create", "rolebindings.rbac.authorization.k8s.io", NAMESPACE, false),
            (OPERATOR, "get", "secrets", "hoist-hosting", false),
            (OPERATOR, "update", "leases.coordination.k8s.io/kube-scheduler", "kube-system", false),
            (OPERATOR, "patch", "customresourcedefinitions.apiextensions.k8s.io", "", false),
        ];
        nobody_may_do_more_than_it_needs(self.kubectl(), &[OPERATOR], &rows);
        for act in [
            &["-n", "kube-system", "get", "secrets"][..],
            &["-n", NAMESPACE, "get", "secrets"],
            &["-n", NAMESPACE, "delete", "secret", "a-pki", "--dry-run=server"],
            &["-n", NAMESPACE, "delete", "hcp", "a", "--dry-run=server"],
            &["-n", NAMESPACE, "run", "tried", "--image=tried", "--dry-run=server"],
            &[
                "-n",
                NAMESPACE,
                "create",
                "rolebinding",
                "tried",
                "--clusterrole=admin",
                "--user=tried",
                "--dry-run=server",
            ],
        ] {
            let ended = self.kubectl().run(&[act, &["--as", OPERATOR]].concat());
            assert!(ended.code == Some(1) && ended.stderr.to_lowercase().contains("forbidden"), "{act:?}: {ended}");
        }
    }
}

impl Tenant {
    fn pem(&self, key: &str) -> Vec<u8> {
        STANDARD.decode(self.text(key)).unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.text("server").strip_prefix("https://").unwrap().parse().unwrap()
    }

    /// What a kubelet of the tenant has: asked for and approved as one is.
    fn kubelet(&self) -> Pair {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (key, request) = (folder.join("hosting-kubelet.key"), folder.join("hosting-kubelet.csr"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        openssl.args(["-subj", "/O=system:nodes/CN=system:node:w1", "-keyout"]).arg(&key).arg("-out").arg(&request);
        let ended = openssl.output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        let request = STANDARD.encode(std::fs::read(request).unwrap());
        self.kubectl.apply(&format!(
            "apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: tried}}
spec:
  request: {request}
  signerName: kubernetes.io/kube-apiserver-client-kubelet
  usages: [digital signature, client auth]
"
        ));
        self.kubectl.run(&["certificate", "approve", "tried"]).ok();
        let certificate = eventually("the tenant signs a kubelet's certificate", SOON, || {
            let object = self.kubectl.get(&["certificatesigningrequest", "tried"]);
            object["status"]["certificate"].as_str().map(|text| STANDARD.decode(text).unwrap())
        });
        Pair { what: "a's kubelet", certificate, key: std::fs::read(key).unwrap() }
    }
}

fn client(place: &Place, pair: Option<&Pair>) -> Client {
    match pair {
        Some(pair) => Client::with_certificate(&place.ca, &pair.certificate, &pair.key, place.address),
        None => Client::with_token(&place.ca, "none", place.address),
    }
}

fn ask(place: &Place, pair: Option<&Pair>, path: &str) -> Result<Response, String> {
    runtime().block_on(client(place, pair).get(path))
}
