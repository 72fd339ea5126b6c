use super::*;
use crate::node::system;

#[test]
fn the_drop_in_replaces_the_command_and_its_environment() {
    let unit = "[Service]\nEnvironmentFile=/etc/kubernetes/kubelet.env\nEnvironment=A=1\nExecStart=/usr/bin/kubelet \\\n  --a \\\n  --b\nExecStopPost=-/x\nTimeoutStopSec=90\nRestart=always\n";
    let text = drop_in(unit);
    let lines: Vec<_> = text.lines().skip(1).collect();
    let expected = [
        "[Unit]",
        "After=keepalived.service",
        "[Service]",
        "EnvironmentFile=",
        "EnvironmentFile=/etc/kubernetes/kubelet.env",
        "Environment=A=1",
        "ExecStart=",
        "ExecStart=/usr/bin/kubelet \\",
        "  --a \\",
        "  --b",
        "ExecStopPost=-/x",
        "TimeoutStopSec=90",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_certificate_counts_until_it_ends() {
    let root = tempfile::tempdir().unwrap();
    let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
    let cluster =
        crate::desired::config::parse("cluster.yaml", crate::desired::config::DEFAULT, Path::new("/")).unwrap();
    let now = OffsetDateTime::now_utc();
    let pki = pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
    assert!(!has_certificate(&host, now));
    for path in [host.kubelet_kubeconfig(), host.kubelet_certificate()] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let first = plan(&host, &assets, &cluster, &cluster.controllers[0]).unwrap();
    assert!(install_files(&host, &first).unwrap());
    assert!(has_certificate(&host, now));
    let second = plan(&host, &assets, &cluster, &cluster.controllers[0]).unwrap();
    assert!(second.certificate.is_none(), "one that is valid is left alone");
    assert!(!has_certificate(&host, now + time::Duration::days(366)));
}

/// A machine of an earlier cluster: a kubelet keeps to what it serves with, whoever has issued it.
#[test]
fn what_another_ca_has_issued_is_not_served() {
    let root = tempfile::tempdir().unwrap();
    let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
    let cluster =
        crate::desired::config::parse("cluster.yaml", crate::desired::config::DEFAULT, Path::new("/")).unwrap();
    let issue = || pki::issue(&cluster, &Default::default(), &Default::default(), OffsetDateTime::now_utc()).unwrap();
    let (own, other) = (issue(), issue());
    let assets = crate::desired::render::render(&cluster, &own.files, "abcdef.0123456789abcdef").unwrap();
    let served = host.kubelet_serving_certificate();
    std::fs::create_dir_all(served.parent().unwrap()).unwrap();
    for (pki, stays) in [(&own, true), (&other, false)] {
        std::fs::write(&served, &pki.files["apiserver.crt"]).unwrap();
        install_files(&host, &plan(&host, &assets, &cluster, &cluster.controllers[0]).unwrap()).unwrap();
        assert_eq!(served.exists(), stays);
    }
}

/// A controller that was off for too long: `hoist render` has issued its kubelet's certificate anew.
#[test]
fn one_that_has_expired_is_written_again() {
    let root = tempfile::tempdir().unwrap();
    let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
    let cluster =
        crate::desired::config::parse("cluster.yaml", crate::desired::config::DEFAULT, Path::new("/")).unwrap();
    let now = OffsetDateTime::now_utc();
    let install = |issued: OffsetDateTime| {
        let pki = pki::issue(&cluster, &Default::default(), &Default::default(), issued).unwrap();
        let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        let plan = plan(&host, &assets, &cluster, &cluster.controllers[0]).unwrap();
        install_files(&host, &plan).unwrap();
        secrets::of_kubelet(&cluster.controllers[0].name, &assets.tls()).unwrap()
    };
    let old = install(now - time::Duration::days(400));
    let current = || std::fs::read(host.kubelet_certificate()).unwrap();
    assert!(current() == old && !has_certificate(&host, now));
    // One that the kubelet got by itself since, and that has expired, too.
    let own = host.path("/var/lib/kubelet/pki/kubelet-client-2026-01-01.pem");
    std::fs::write(&own, &old).unwrap();
    std::fs::remove_file(host.kubelet_certificate()).unwrap();
    std::os::unix::fs::symlink(&own, host.kubelet_certificate()).unwrap();
    let new = install(now);
    assert!(current() == new && has_certificate(&host, now));
}

/// One that is new asks there from the start; one that asks already is led there once somebody has answered.
#[test]
fn a_new_kubelet_asks_the_endpoint_of_its_node() {
    for (before, expected) in
        [(None, "https://127.0.0.1:7443"), (Some("https://10.0.0.1:6443"), "https://10.0.0.1:6443")]
    {
        let root = tempfile::tempdir().unwrap();
        let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\nendpoint: {nodeLocal: true}\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let now = OffsetDateTime::now_utc();
        let pki = pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        let assets = crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap();
        if let Some(before) = before {
            std::fs::create_dir_all(host.kubelet_kubeconfig().parent().unwrap()).unwrap();
            let text = format!("clusters:\n- name: a\n  cluster:\n    server: {before}\n");
            std::fs::write(host.kubelet_kubeconfig(), text).unwrap();
        }
        install_files(&host, &plan(&host, &assets, &cluster, &cluster.controllers[0]).unwrap()).unwrap();
        assert_eq!(kubelet_kubeconfig::server(&host).as_deref(), Some(expected));
    }
}
