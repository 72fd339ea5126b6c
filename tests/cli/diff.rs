//! `hoist render --diff`: what it shows, what it hides, and that it writes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{CLUSTER, Folder, Ran};

const DAEMONSET: &str = "assets/manifests/kube-apiserver/daemonset.yaml";
const NEWER: &str = "- name: c2\n  address: 198.51.100.11\nkubernetesVersion: v1.35.4\n";

fn diff(folder: &Folder) -> Ran {
    folder.unchanged(|| folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"]))
}

/// Its answer is the exit code.
#[track_caller]
fn shows(ran: Ran) -> String {
    assert_eq!((ran.code, &*ran.stderr), (Some(2), ""), "{}", ran.stdout);
    ran.stdout
}

/// Files that anybody may read, by their path below `dir`.
fn open_files(dir: &Path) -> BTreeMap<String, String> {
    fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let is_secret = name.starts_with("tls") || name.starts_with("auth") || name.ends_with("secret.yaml");
            if path.is_dir() {
                collect(root, &path, found);
            } else if !is_secret && !name.starts_with('.') {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(dir, dir, &mut found);
    found
}

/// Nothing of what is secret in `folder` is in `text`, as it stands there or in base64.
#[track_caller]
fn hides_secrets(folder: &Folder, text: &str) {
    use base64::Engine;
    let shown = text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=.".contains(c));
    let shown: std::collections::BTreeSet<_> = shown.filter(|word| word.len() > 12).collect();
    let mut secrets = 0;
    // The CA is handed out to whoever joins.
    let ca = base64::engine::general_purpose::STANDARD.encode(folder.read("assets/tls/ca.crt"));
    for (path, (mode, _, _, content)) in folder.tree() {
        if !path.is_file() || mode & 0o044 != 0 {
            continue;
        }
        let encoded = base64::engine::general_purpose::STANDARD.encode(&content);
        let lines = String::from_utf8(content).unwrap();
        for line in lines.lines().map(str::trim).chain([&*encoded]) {
            let value = line.rsplit(' ').next().unwrap().trim_matches('"');
            if value != ca
                && value.len() > 20
                && !value.contains("://")
                && !value.starts_with("--")
                && !value.contains("system:")
            {
                secrets += 1;
                assert!(!shown.contains(value), "{}: {line}", path.display());
            }
        }
    }
    assert!(secrets > 50, "too few to show anything: {secrets}");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}

#[test]
fn there_is_nothing_to_show_after_a_render() {
    let folder = Folder::rendered(CLUSTER);
    assert_eq!(diff(&folder).ok(), "");
}

#[test]
fn a_new_directory_is_shown_whole_and_not_made() {
    let folder = Folder::with(CLUSTER);
    let text = shows(diff(&folder));
    assert!(!folder.path("assets").exists());
    assert!(text.contains("--- /dev/null\n+++ b/manifests/kube-apiserver/daemonset.yaml\n@@ -0,0 +1,"), "{text}");
    assert!(text.contains("# tls/ca.key: new\n"), "{text}");
    assert!(text.contains("# tls/apiserver.crt: new\n#   + CN=kube-apiserver; valid from "), "{text}");
    assert!(text.contains("; names kubernetes, kubernetes.default,"), "{text}");
    assert!(text.contains("# auth/kubeconfig: new: made when it is rendered\n"), "{text}");
    assert!(text.contains("# manifests/kube-scheduler/secret.yaml: new: made when it is rendered\n"), "{text}");
    fs::create_dir(folder.path("assets")).unwrap();
    assert_eq!(shows(diff(&folder)).lines().count(), text.lines().count(), "an empty one is as good as none");
}

#[test]
fn patch_makes_of_it_what_render_makes() {
    let folder = Folder::rendered(CLUSTER);
    // A merge, a file that goes, files that come, and an edit that stays.
    folder.edit(DAEMONSET, "cpu: 250m", "cpu: 1");
    let rbac = folder.read("assets/manifests/kubelet/rbac.yaml");
    folder.put("assets/manifests/kubelet/rbac.yaml", format!("# mine\n{rbac}"));
    let external = "etcd:\n  external:\n    endpoints: [https://192.0.2.1:2379]\n    caFile: assets/tls/etcd/ca.crt\n    certFile: assets/tls/apiserver-etcd-client.crt\n    keyFile: assets/tls/apiserver-etcd-client.key\n";
    folder.put("cluster.yaml", format!("{CLUSTER}{NEWER}{external}"));
    let text = shows(diff(&folder));
    hides_secrets(&folder, &text);
    assert!(
        text.contains("# manifests/kube-apiserver/daemonset.yaml: your edit stays in it\n--- a/manifests/"),
        "{text}"
    );
    assert!(text.contains("--- a/bootstrap-manifests/etcd.yaml\n+++ /dev/null\n"), "{text}");
    assert!(
        text.contains("# tls/apiserver.crt: issued anew: names were added: 198.51.100.11, c2\n#   - CN="),
        "{text}"
    );
    assert!(text.contains("serial made when it is issued; names kubernetes"), "{text}");
    assert!(text.contains("# manifests/kube-apiserver/secret.yaml: changes: sha256 "), "{text}");
    assert!(text.contains("#   data[\"apiserver.crt\"] changes\n"), "{text}");
    assert!(text.contains("# tls/etcd/c1/peer.key: left, though this cluster does not use it\n"), "{text}");
    assert!(text.contains("# manifests/kubelet/rbac.yaml: kept, with your edit\n"), "{text}");

    folder.put("diff", text.replace("DIR", folder.path("").to_str().unwrap().trim_end_matches('/')));
    let copy = folder.path("copy");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(Command::new("cp").arg("-a").arg(folder.path("assets")).arg(&copy));
    run(Command::new("patch").args(["-p1", "--batch", "-i"]).arg(folder.path("diff")).current_dir(&copy));
    let said = folder.render().ok();
    assert!(
        said.contains("merged manifests/kube-apiserver/daemonset.yaml: it has hoist's change and your edit"),
        "{said}"
    );
    let (patched, rendered) = (open_files(&copy), open_files(&folder.path("assets")));
    assert_eq!(patched.keys().collect::<Vec<_>>(), rendered.keys().collect::<Vec<_>>());
    for (path, text) in &patched {
        assert_eq!(text, &rendered[path], "{path}");
    }
    assert!(!folder.read(DAEMONSET).contains("cpu: 250m") && folder.read(DAEMONSET).contains("v1.35.4"));
    let rest = diff(&folder).ok();
    assert!(
        rest.lines().all(|line| line.starts_with("# ") && line.contains(": kept,") || line.contains(": left,")),
        "{rest}"
    );
}

#[test]
fn a_conflict_is_shown_with_all_else_that_changes() {
    let folder = Folder::rendered(CLUSTER);
    folder.edit(DAEMONSET, "kube-apiserver:v1.37.2", "kube-apiserver:mine");
    folder.put("cluster.yaml", format!("{CLUSTER}kubernetesVersion: v1.35.4\n"));
    let ran = diff(&folder);
    assert!(ran.stdout.contains("+++ b/manifests/kube-scheduler/deployment.yaml\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("+++ b/manifests/kube-apiserver/daemonset.yaml\n"), "{}", ran.stdout);
    ran.failed_saying(3, &["daemonset.yaml:", ": you edited", "kube-apiserver:mine\"\n", "kube-apiserver:v1.35.4\"\n"]);
}

#[test]
fn what_is_secret_is_told_by_its_fields() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("cluster.yaml", format!("{CLUSTER}controlPlaneEndpoint: api.example.com\n"));
    let text = shows(diff(&folder));
    hides_secrets(&folder, &text);
    let server = "#   clusters[0].cluster.server: \"https://198.51.100.10:6443\" -> \"https://api.example.com:6443\"\n";
    assert!(text.contains(server), "{text}");
    // A Secret that the user put into a file that anybody may read.
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {password: sesame}\n";
    let rbac = folder.read("assets/manifests/kubelet/rbac.yaml");
    folder.put("assets/manifests/kubelet/rbac.yaml", rbac + secret);
    let args = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"];
    let replace = [&args[..], &["--replace", "manifests/kubelet/rbac.yaml"]].concat();
    let text = shows(folder.unchanged(|| folder.run(&replace)));
    assert!(text.contains("# manifests/kubelet/rbac.yaml: changes: ") && !text.contains("sesame"), "{text}");
}

#[test]
fn a_directory_that_may_only_be_read() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("cluster.yaml", format!("{CLUSTER}clusterName: other\n"));
    let modes: Vec<_> =
        folder.tree().into_iter().filter(|(path, _)| path.is_dir()).map(|(path, entry)| (path, entry.0)).collect();
    for (path, _) in &modes {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
    }
    let text = shows(diff(&folder));
    assert!(text.contains("-clusterName: kubernetes\n+clusterName: other\n"), "{text}");
    for (path, mode) in modes {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn a_certificate_that_expires_is_announced() {
    // The shortest one: it has expired when it is looked at again.
    let folder = Folder::rendered(&format!("{CLUSTER}pki: {{certificateValidityPeriod: 1s}}\n"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let text = shows(diff(&folder));
    assert!(text.contains("# tls/apiserver.crt: issued anew: expired 2"), "{text}");
    assert!(text.contains("#   - CN=kube-apiserver; valid from ") && text.contains("; serial "), "{text}");
    assert!(!text.contains(".key: "), "keys stay: {text}");
    hides_secrets(&folder, &text);
}

#[test]
fn colours_are_for_terminals() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("cluster.yaml", format!("{CLUSTER}controlPlaneEndpoint: api.example.com\n"));
    assert!(!shows(diff(&folder)).contains('\x1b'));
    let hoist = env!("CARGO_BIN_EXE_hoist");
    let on_a_terminal = |no_color: &str| {
        let line = format!("{hoist} render --config cluster.yaml --asset-dir assets --diff");
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("NO_COLOR", no_color);
        command.current_dir(folder.path("")).stdin(std::process::Stdio::null());
        shows(folder.unchanged(|| folder.ran(&mut command)))
    };
    let text = on_a_terminal("");
    assert!(text.contains("\x1b[1m# auth/kubeconfig: changes: ") && text.contains("\x1b[32m+"), "{text:?}");
    assert!(!on_a_terminal("1").contains('\x1b'));
}

#[test]
fn an_interrupted_render_is_said() {
    let folder = Folder::rendered(CLUSTER);
    folder.put("assets/.rendering", "");
    assert_eq!(shows(diff(&folder)), "# the last render was interrupted; this one would complete it\n");
}
