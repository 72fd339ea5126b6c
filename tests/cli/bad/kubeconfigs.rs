//! auth/kubeconfig, which `start` uses as root.

use super::{Row, Table};
use crate::support::{CLUSTER, Folder};

const PATH: &str = "assets/auth/kubeconfig";

#[test]
fn what_start_refuses() {
    let mut table = Table::default();
    let another = Folder::rendered(CLUSTER);
    let data = |folder: &Folder, field: &str| {
        let text = folder.read(PATH);
        text.lines().find_map(|line| line.trim().strip_prefix(field)).unwrap().trim_start_matches(": ").to_owned()
    };
    let other_ca = data(&another, "certificate-authority-data");
    let replaced = |field: &'static str, with: &str| {
        let with = with.to_owned();
        Box::new(move |text: String| {
            let lines = text.lines().map(|line| match line.trim_start().starts_with(field) {
                true => format!("{}{with}\n", &line[..line.len() - line.trim_start().len()]),
                false => format!("{line}\n"),
            });
            lines.collect()
        }) as Box<dyn Fn(String) -> String>
    };
    let rows: Vec<(&str, Box<dyn Fn(String) -> String>, &str)> = vec![
        ("empty", Box::new(|_| String::new()), "kubeconfig: holds 0 documents, where a kubeconfig is one"),
        ("two documents", Box::new(|text| format!("{text}---\n{text}")), "holds 2 documents"),
        ("no YAML", Box::new(|text| format!("{text}[")), "not valid YAML"),
        (
            "another kind of file",
            Box::new(|text| text.replace("kind: Config", "kind: Pod")),
            ":2:7: is not a kubeconfig: its kind is not Config",
        ),
        ("a list", Box::new(|_| "- a\n".into()), ":1:1: is not a kubeconfig: "),
        ("a text for a list", Box::new(|text| text.replace("users:", "users: x\nothers:")), "is not a kubeconfig: "),
        ("no current context", replaced("current-context", ""), "names no current-context"),
        (
            "a context that is missing",
            replaced("current-context", "current-context: x"),
            ":18:18: its current context, x, is not among the contexts",
        ),
        (
            "a user that is missing",
            replaced("user: \"", "user: x"),
            "contexts[0].context.user: names none of the users",
        ),
        (
            "a cluster that is missing",
            replaced("cluster: \"", "cluster: x"),
            "contexts[0].context.cluster: names none of the clusters",
        ),
        (
            "an exec plugin",
            replaced(
                "client-key-data",
                "exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/x]}",
            ),
            ":12:5: users[0].user.exec: would run a program to get credentials",
        ),
        (
            "another plugin",
            replaced("client-key-data", "auth-provider: {name: gcp}"),
            "users[0].user.auth-provider: would run a program",
        ),
        (
            "another CA",
            replaced("certificate-authority-data", &format!("certificate-authority-data: {other_ca}")),
            ":7:5: clusters[0].cluster.certificate-authority-data: is not the CA in tls/ca.crt",
        ),
        (
            "a CA in a file",
            replaced("certificate-authority-data", "certificate-authority: /tmp/ca.crt"),
            ":7:5: clusters[0].cluster.certificate-authority: names a file",
        ),
        (
            "any CA",
            replaced("certificate-authority-data", "insecure-skip-tls-verify: true"),
            "clusters[0].cluster.insecure-skip-tls-verify: trusts any server",
        ),
        (
            "no TLS",
            replaced("server", "server: http://127.0.0.1:8080"),
            "clusters[0].cluster.server: is not an https:// URL",
        ),
        (
            "a proxy",
            replaced("server", "proxy-url: http://proxy.example.com"),
            "clusters[0].cluster.proxy-url: goes through a proxy",
        ),
        (
            "no key",
            replaced("client-key-data", ""),
            "users[0].user: holds neither a token nor a client certificate with its key",
        ),
        (
            "a key that is none",
            replaced("client-key-data", "client-key-data: eA=="),
            "users[0].user.client-key-data: holds no private key",
        ),
        (
            "a key of another",
            replaced("client-key-data", &format!("client-key-data: {}", data(&another, "client-key-data"))),
            "users[0].user.client-key-data: is not the key of the certificate",
        ),
        (
            "a certificate in form only",
            replaced(
                "client-certificate-data",
                "client-certificate-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BQT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=",
            ),
            "users[0].user.client-key-data: is not the key of the certificate",
        ),
        (
            "a URL that is none",
            replaced("server", "server: https://a b"),
            "clusters[0].cluster.server: is not an https:// URL",
        ),
        (
            "a certificate that is none",
            replaced("client-certificate-data", "client-certificate-data: '%'"),
            "users[0].user.client-certificate-data: holds no certificate",
        ),
        (
            "a password",
            replaced("client-key-data", "password: x"),
            "users[0].user.password: is a kind of credentials that Kubernetes no longer accepts",
        ),
    ];
    for (name, edit, says) in rows {
        let folder = Folder::rendered(CLUSTER);
        folder.put(PATH, edit(folder.read(PATH)));
        folder.give_away();
        let remedy = "move it away and run `hoist render` again: it is made anew";
        table.row(&Row { name, code: 3, says: &[says, remedy] }, &folder, || folder.bounded_start());
    }
}
