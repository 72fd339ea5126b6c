//! `hoist render` where the CAs' keys are elsewhere. openssl is the holder of the keys.

use std::process::Command;

use crate::support::{CLUSTER, Folder};

const PKI: &str = "pki:\n  ca: {certificate: ca.crt}\n  etcdCA: {certificate: etcd-ca.crt}\n  frontProxyCA: {certificate: front-proxy-ca.crt}\n";

fn openssl(folder: &Folder, args: &str) {
    let output = Command::new("openssl").args(args.split_whitespace()).current_dir(folder.path("")).output().unwrap();
    assert!(output.status.success(), "{args}: {output:?}");
}

/// A folder with three CAs and a cluster.yaml that names their certificates.
fn folder() -> Folder {
    let folder = Folder::with(&format!("{CLUSTER}{PKI}"));
    for ca in ["ca", "etcd-ca", "front-proxy-ca"] {
        openssl(&folder, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {ca}.key"));
        openssl(&folder, &format!("req -x509 -new -key {ca}.key -out {ca}.crt -days 300 -subj /CN={ca}"));
    }
    folder
}

/// Signs every request.
fn sign_all(folder: &Folder, options: &str) -> usize {
    let requests: Vec<_> =
        folder.tree().into_keys().filter(|path| path.extension().is_some_and(|e| e == "csr")).collect();
    for path in &requests {
        let stem = path.with_extension("").display().to_string();
        let ca = match &stem {
            stem if stem.ends_with("front-proxy-client") => "front-proxy-ca",
            stem if stem.contains("etcd") => "etcd-ca",
            _ => "ca",
        };
        openssl(folder, &format!("x509 -req -in {stem}.csr -CA {ca}.crt -CAkey {ca}.key -out {stem}.crt {options}"));
    }
    requests.len()
}

const COPY: &str = "-days 100 -copy_extensions copyall";

#[test]
fn requests_go_out_and_certificates_come_back() {
    let folder = folder();
    let ran = folder.render();
    assert_eq!(ran.stdout, "assets: 30 files, 30 of them written\n");
    ran.failed_saying(
        9,
        &[
            "hoist: certificates are awaited that only the holders of the CAs' keys can sign\n  tls/apiserver.crt: is not there yet\n",
            "    have tls/kubelet/c1/client.csr signed by CN=ca: subject O=system:nodes, CN=system:node:c1; extended key usage clientAuth\n",
            "  next: put each certificate at its path, and run the same command again\n",
        ],
    );
    // Nothing to start yet, and nothing new to ask for.
    folder.unchanged(|| folder.render()).failed_saying(9, &["tls/admin.crt: is not there yet"]);
    assert!(!folder.path("assets/cluster.yaml").exists());
    folder
        .unchanged(|| folder.run(&["start", "--asset-dir", "assets"]))
        .failed_saying(3, &["waits for certificates to be signed"]);

    // The commonest mistake: openssl leaves out what is asked for, unless it is told.
    assert_eq!(sign_all(&folder, "-days 100"), 12);
    folder.unchanged(|| folder.render()).failed_saying(
        9,
        &["tls/apiserver.crt: lacks the names kubernetes, ", "; lacks the extended key usage serverAuth\n"],
    );
    assert_eq!(sign_all(&folder, COPY), 12);
    let said = folder.render().ok();
    assert!(said.contains("removed tls/apiserver.csr: its certificate is there\n"), "{said}");
    assert!(said.ends_with("assets: 72 files, 42 of them written\n"), "{said}");
    assert_eq!(folder.unchanged(|| folder.render()).ok(), "assets: 72 files, 0 of them written\n");

    // It is a new cluster, although some of its keys are older than this render.
    let encryption = folder.read("assets/tls/encryption.yaml");
    assert!(encryption.find("secretbox:").unwrap() < encryption.find("identity:").unwrap(), "{}", encryption.len());

    // Nothing in the cluster can sign, and nothing says it can.
    for (path, (_, _, _, content)) in folder.tree() {
        let (path, text) = (path.display().to_string(), String::from_utf8(content).unwrap());
        assert!(
            !path.contains("/assets/") || !(path.ends_with("ca.key") || path.ends_with("kubeconfig-kubelet")),
            "{path}"
        );
        assert!(!path.contains("controller-manager") || !text.contains("--cluster-signing-"), "{path}");
    }
    assert!(folder.read("assets/kubelet/config.yaml").contains("rotateCertificates: false\n"));
    assert!(!folder.read("assets/manifests/kube-controller-manager/secret.yaml").contains("ca.key"));
}

#[test]
fn what_stands_goes_on_while_new_certificates_are_awaited() {
    let folder = folder();
    folder.render();
    sign_all(&folder, COPY);
    folder.render().ok();
    folder.put("cluster.yaml", format!("{CLUSTER}- name: c2\n  address: 198.51.100.11\n{PKI}"));
    let args = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"];
    let ran = folder.unchanged(|| folder.run(&args));
    assert!(ran.stdout.contains("# tls/kubelet/c2/client.csr: a request to CN=ca\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("manifests/"), "{}", ran.stdout);
    ran.failed_saying(9, &["tls/apiserver.crt: lacks the names c2, 198.51.100.11\n"]);

    let manifests = folder.read("assets/manifests/kube-apiserver/secret.yaml");
    folder.render().failed_saying(9, &["tls/kubelet/c2/client.crt: is not there yet"]);
    assert_eq!(folder.read("assets/manifests/kube-apiserver/secret.yaml"), manifests, "it still fits what stands");
    assert_eq!(sign_all(&folder, COPY), 4);
    let said = folder.render().ok();
    assert!(said.contains("removed tls/apiserver.csr: its certificate is there\n"), "{said}");
    assert_ne!(folder.read("assets/manifests/kube-apiserver/secret.yaml"), manifests);
}

#[test]
fn a_certificate_that_expires_soon_is_asked_for_in_time() {
    let folder = folder();
    folder.render();
    sign_all(&folder, "-days 100 -copy_extensions copyall");
    folder.render().ok();
    // The next one, whose life is nearly over: openssl dates it as it is told.
    std::fs::write(folder.path("index.txt"), "").unwrap();
    let config = "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\ncopy_extensions=copyall\nrand_serial=yes\n[p]\norganizationName=optional\ncommonName=supplied\n";
    folder.put("ca.cnf", config);
    openssl(
        &folder,
        "req -new -key assets/tls/admin.key -subj /O=system:masters/CN=kubernetes-admin -addext extendedKeyUsage=clientAuth -out admin.csr",
    );
    let (begin, end) = (dated(-90), dated(10));
    openssl(
        &folder,
        &format!(
            "ca -batch -notext -config ca.cnf -cert ca.crt -keyfile ca.key -startdate {begin} -enddate {end} -in admin.csr -out assets/tls/admin.crt"
        ),
    );
    let said = folder.render().ok();
    assert!(said.contains("tls/admin.crt: warning: expires 2"), "{said}");
    assert!(said.contains("    have tls/admin.csr signed by CN=ca: subject O=system:masters"), "{said}");
    assert!(folder.path("assets/tls/admin.csr").exists());
    // It is said again as long as it is so, and nothing is written for it.
    assert!(folder.unchanged(|| folder.render()).ok().contains("tls/admin.crt: warning: expires 2"));
}

/// So many days from now, as openssl takes it.
fn dated(days: i64) -> String {
    let output = Command::new("date").args(["-u", "-d", &format!("{days} days"), "+%Y%m%d%H%M%SZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
