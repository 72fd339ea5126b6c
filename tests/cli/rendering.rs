//! `hoist render` on a folder of its own, again and again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::{CLUSTER, Folder};

const DAEMONSET: &str = "assets/manifests/kube-apiserver/daemonset.yaml";

#[test]
fn twice_changes_nothing() {
    let folder = Folder::with(CLUSTER);
    assert_eq!(folder.render().ok(), "assets: 82 files, 82 of them written\n");
    let again = folder.unchanged(|| folder.render()).ok();
    assert_eq!(again, "assets: 82 files, 0 of them written\n");
}

#[test]
fn secrets_are_for_their_owner() {
    let folder = Folder::rendered(CLUSTER);
    for (path, (mode, ..)) in folder.tree() {
        let name = path.strip_prefix(folder.path("assets")).unwrap_or(&path).to_string_lossy().into_owned();
        let is_secret = name.ends_with(".key")
            || name.starts_with("auth/")
            || name.ends_with("secret.yaml")
            || name == "tls/encryption.yaml";
        let expected = match (path.is_dir(), name.starts_with("tls") || name.starts_with("auth")) {
            (true, true) => 0o700,
            (true, false) => 0o755,
            (false, _) if is_secret => 0o600,
            (false, _) => 0o644,
        };
        assert_eq!(mode & 0o777, expected, "{name}");
    }
}

#[test]
fn the_default_configuration_is_rendered_as_it_is() {
    let folder = Folder::new();
    let text = folder.run(&["config", "default"]).ok();
    folder.put("cluster.yaml", &text);
    folder.render().ok();
    assert!(folder.read("assets/cluster.yaml").contains("name: controller-1"));

    // The same from standard input.
    let mut command = folder.command(&["render", "--config", "-", "--asset-dir", "assets"]);
    command.stdin(fs::File::open(folder.path("cluster.yaml")).unwrap());
    folder.unchanged(|| folder.ran(&mut command)).ok();
    folder.put("cluster.yaml", "kind: x\n");
    let mut command = folder.command(&["render", "--config", "-", "--asset-dir", "assets"]);
    command.stdin(fs::File::open(folder.path("cluster.yaml")).unwrap());
    folder.unchanged(|| folder.ran(&mut command)).failed_saying(3, &["  standard input:1:7: kind: \"x\" is not known"]);
}

/// A newer hoist does not upgrade a cluster by itself: where cluster.yaml names no version, what was rendered stays.
#[test]
fn a_cluster_keeps_its_version_until_cluster_yaml_names_another() {
    let folder = Folder::with(&format!("{CLUSTER}kubernetesVersion: v1.36.3\n"));
    folder.render().ok();
    folder.put("cluster.yaml", CLUSTER);
    let own = hoist::desired::config::KUBERNETES_VERSION;
    let kept =
        format!("kept Kubernetes v1.36.3; for another version, set it in cluster.yaml (kubernetesVersion: {own})\n");
    let again = folder.unchanged(|| folder.render()).ok();
    assert_eq!(again, format!("{kept}assets: 82 files, 0 of them written\n"));
    assert!(folder.read(DAEMONSET).contains("kube-apiserver:v1.36.3"));
    let diff = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"];
    assert_eq!(folder.unchanged(|| folder.run(&diff)).ok(), "");

    folder.put("cluster.yaml", format!("{CLUSTER}kubernetesVersion: {own}\n"));
    let said = folder.render().ok();
    assert!(!said.contains("kept Kubernetes"), "{said}");
    assert!(folder.read(DAEMONSET).contains(&format!("kube-apiserver:{own}")));
    assert!(folder.read("assets/bootstrap-manifests/etcd.yaml").contains("etcd:3.7.0-0"));

    // What it was rendered with nobody can tell: it is asked for, and not guessed.
    folder.put("cluster.yaml", CLUSTER);
    fs::remove_file(folder.path("assets/cluster.yaml")).unwrap();
    let none = "kubernetesVersion: none is named, and the cluster.yaml of the asset directory does not say which one";
    folder.unchanged(|| folder.render()).failed_saying(3, &[none, "write the version that the cluster runs"]);
    folder.put("assets/cluster.yaml", CLUSTER);
    let replace = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--replace", "cluster.yaml"];
    folder.unchanged(|| folder.run(&replace)).failed_saying(3, &[none]);
    folder.put("cluster.yaml", format!("{CLUSTER}kubernetesVersion: {own}\n"));
    assert_eq!(folder.run(&replace).ok(), "assets: 82 files, 1 of them written\n");
}

#[test]
fn edits_are_kept_and_said() {
    let folder = Folder::rendered(CLUSTER);
    folder.edit(DAEMONSET, "cpu: 250m", "cpu: 1");
    fs::remove_file(folder.path("assets/manifests/kubelet/rbac.yaml")).unwrap();
    folder.put("assets/manifests/mine/config.yaml", "kind: ConfigMap\n");
    let said = "kept your own manifests/kube-apiserver/daemonset.yaml\n\
        left out manifests/kubelet/rbac.yaml: you removed it (--replace manifests/kubelet/rbac.yaml brings it back)\n\
        assets: 82 files, 0 of them written\n";
    assert_eq!(folder.unchanged(|| folder.render()).ok(), said);
}

#[test]
fn an_edit_and_a_change_of_other_lines_are_merged() {
    let folder = Folder::rendered(CLUSTER);
    folder.edit(DAEMONSET, "cpu: 250m", "cpu: 1");
    folder.put("cluster.yaml", format!("{CLUSTER}kubernetesVersion: v1.35.4\n"));
    let merged = "merged manifests/kube-apiserver/daemonset.yaml: it has hoist's change and your edit\n";
    let said = folder.render().ok();
    assert!(said.contains(merged), "{said}");
    let text = folder.read(DAEMONSET);
    assert!(text.contains("kube-apiserver:v1.35.4") && text.contains("cpu: 1\n") && !text.contains("250m"), "{text}");
    let said = "kept your own manifests/kube-apiserver/daemonset.yaml\nassets: 82 files, 0 of them written\n";
    assert_eq!(folder.unchanged(|| folder.render()).ok(), said);
}

#[test]
fn an_edit_whose_input_changed_is_refused_until_the_user_says_which() {
    let folder = Folder::rendered(CLUSTER);
    folder.edit(DAEMONSET, "kube-apiserver:v1.37.2", "kube-apiserver:mine");
    let line = 1 + folder.read(DAEMONSET).lines().position(|line| line.contains("kube-apiserver:mine")).unwrap();
    folder.put("cluster.yaml", format!("{CLUSTER}- name: c2\n  address: 198.51.100.11\nkubernetesVersion: v1.35.4\n"));
    let invalid = "hoist: the input is not valid; nothing was changed\n";
    folder.unchanged(|| folder.render()).failed(
        3,
        &format!(
            "{invalid}  DIR/{DAEMONSET}:{line}:1: you edited lines that hoist now renders differently (cluster.yaml or hoist has changed)\n    \
             yours: image: \"registry.k8s.io/kube-apiserver:mine\"\n    \
             hoist's: image: \"registry.k8s.io/kube-apiserver:v1.35.4\"\n    \
             write what you want into it and add --keep manifests/kube-apiserver/daemonset.yaml; or add --replace manifests/kube-apiserver/daemonset.yaml to drop your edit\n"
        ),
    );
    let keep = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--keep", "cluster.yaml"];
    folder.unchanged(|| folder.run(&keep)).failed_saying(3, &["--keep: cluster.yaml must fit the files that are made"]);
    let mut args = vec!["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--replace"];
    args.push("manifests/kube-apiserver/daemonset.yml");
    folder.unchanged(|| folder.run(&args)).failed(
        3,
        &format!(
            "{invalid}  --replace: `hoist render` makes no manifests/kube-apiserver/daemonset.yml from this configuration\n    \
             name a file by its path below the asset directory, such as manifests/kubelet/rbac.yaml\n"
        ),
    );
    args.pop();
    // As a shell completes it.
    args.push(DAEMONSET);
    let said = folder.run(&args).ok();
    assert!(said.contains("issued tls/apiserver.crt: names were added: 198.51.100.11, c2\n"), "{said}");
    assert!(folder.read(DAEMONSET).contains("kube-apiserver:v1.35.4"));
    assert!(!folder.read(DAEMONSET).contains("kube-apiserver:mine"));
}

#[test]
fn a_key_that_is_gone_is_made_again_and_no_other() {
    let folder = Folder::rendered(CLUSTER);
    let before = folder.tree();
    fs::remove_file(folder.path("assets/tls/kube-scheduler.key")).unwrap();
    let said = "issued tls/kube-scheduler.key: new\nissued tls/kube-scheduler.crt: its key was missing\n\
        assets: 82 files, 3 of them written\n";
    assert_eq!(folder.render().ok(), said);
    let after = folder.tree();
    let changed: Vec<_> = after
        .iter()
        .filter(|(path, entry)| path.is_file() && before.get(*path) != Some(entry))
        .map(|(path, _)| path.strip_prefix(folder.path("assets")).unwrap().display().to_string())
        .collect();
    let expected =
        [".rendered", "manifests/kube-scheduler/secret.yaml", "tls/kube-scheduler.crt", "tls/kube-scheduler.key"];
    assert_eq!(changed, expected);
}

#[test]
fn what_a_cluster_has_no_use_for_any_more() {
    let two = format!("{CLUSTER}- name: c2\n  address: 198.51.100.11\n");
    let folder = Folder::rendered(&two);
    folder.put("cluster.yaml", CLUSTER);
    let said = folder.render().ok();
    assert!(said.contains("left tls/etcd/c2/peer.key, which this cluster does not use\n"), "{said}");
    // A controller that comes back finds its keys.
    let keys = folder.read("assets/tls/etcd/c2/peer.key");
    folder.put("cluster.yaml", &two);
    folder.render().ok();
    assert_eq!(folder.read("assets/tls/etcd/c2/peer.key"), keys);

    let external = "etcd:\n  external:\n    endpoints: [https://192.0.2.1:2379]\n    caFile: assets/tls/etcd/ca.crt\n    certFile: assets/tls/apiserver-etcd-client.crt\n    keyFile: assets/tls/apiserver-etcd-client.key\n";
    folder.put("cluster.yaml", format!("{CLUSTER}{external}"));
    let said = folder.render().ok();
    assert!(said.contains("removed bootstrap-manifests/etcd.yaml: this cluster does not use it\n"), "{said}");
    assert!(!folder.path("assets/bootstrap-manifests/etcd.yaml").exists());
    folder.unchanged(|| folder.render()).ok();
}

#[test]
fn the_users_own_cluster_yaml_in_the_asset_directory() {
    let folder = Folder::rendered(CLUSTER);
    let render = || folder.run(&["render", "--config", "assets/cluster.yaml", "--asset-dir", "assets"]);
    // The resolved one may be rendered again, and edited in its own form.
    assert_eq!(folder.unchanged(render).ok(), "assets: 82 files, 0 of them written\n");
    folder.edit("assets/cluster.yaml", "clusterName: kubernetes", "clusterName: mine");
    assert!(render().ok().contains(" of them written"));
    assert!(folder.read("assets/auth/kubeconfig").contains("mine"));
    // One with comments would lose them.
    folder.put("assets/cluster.yaml", format!("# My cluster.\n{CLUSTER}"));
    folder.unchanged(render).failed_saying(
        3,
        &[
            "DIR/assets/cluster.yaml: was edited, and `hoist render` writes",
            "move it out of the asset directory and name it with --config",
        ],
    );
}

#[test]
fn a_render_that_is_killed_is_run_again() {
    let two = format!("{CLUSTER}- name: c2\n  address: 198.51.100.11\n");
    for delay in (0..60).step_by(6) {
        for rendered_before in [false, true] {
            let folder = Folder::with(CLUSTER);
            if rendered_before {
                folder.render().ok();
                folder.put("cluster.yaml", &two);
            }
            let args = ["render", "--config", "cluster.yaml", "--asset-dir", "assets"];
            let mut child = folder.command(&args).stdout(std::process::Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            folder.render().ok();
            let said = folder.unchanged(|| folder.render()).ok();
            assert!(said.ends_with(", 0 of them written\n") && said.lines().count() == 1, "{delay}: {said}");
            let names: Vec<_> = folder.tree().into_keys().map(|path| path.display().to_string()).collect();
            assert!(!names.iter().any(|name| name.contains(".hoist-") || name.ends_with(".rendering")), "{names:?}");
        }
    }
}

#[test]
fn a_folder_that_may_not_be_written() {
    let folder = Folder::rendered(CLUSTER);
    if nix::unistd::geteuid().is_root() {
        return; // Root may write everywhere.
    }
    folder.put("cluster.yaml", format!("{CLUSTER}clusterName: other\n"));
    fs::set_permissions(folder.path("assets"), fs::Permissions::from_mode(0o555)).unwrap();
    folder.unchanged(|| folder.render()).failed_saying(1, &["cannot write in DIR/assets"]);
    fs::set_permissions(folder.path("assets"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A new key could not read what the lost one has encrypted.
#[test]
fn a_lost_encryption_key_is_not_replaced() {
    const KEYS: &str = "assets/tls/encryption.yaml";
    let folder = Folder::rendered(CLUSTER);
    let text = folder.read(KEYS);
    fs::remove_file(folder.path(KEYS)).unwrap();
    let refused = folder.unchanged(|| folder.render());
    refused.failed_saying(
        3,
        &[
            "tls/encryption.yaml: is missing, and nothing could read what it has encrypted",
            "--replace tls/encryption.yaml",
        ],
    );
    folder.put(KEYS, text.replace("key1", "mine"));
    let said = folder.render().ok();
    assert!(said.ends_with("assets: 82 files, 2 of them written\n"), "{said}");
    assert!(folder.read(KEYS).contains("mine"));
    fs::remove_file(folder.path(KEYS)).unwrap();
    let args = ["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--replace", "tls/encryption.yaml"];
    folder.run(&args).ok();
    assert!(folder.read(KEYS).contains("key1"));
    folder.put(KEYS, "kind: EncryptionConfiguration\n");
    folder
        .unchanged(|| folder.render())
        .failed_saying(3, &["tls/encryption.yaml: is not an EncryptionConfiguration of"]);
}

/// What may be meant is said, with its place, and nothing is refused for it; `hoist validate` says it, too.
#[test]
fn what_may_not_be_meant_is_said() {
    let text = format!(
        "{CLUSTER}controlPlaneEndpoint: 169.254.10.10\nnetworking: {{podSubnet: 10.244.0.0/24}}\n\
         dns: {{upstreams: [10.96.0.53, 127.0.0.53, 10.244.0.53]}}\n\
         apiServer:\n  extraArgs:\n  - {{name: enable-admission-plugins, value: AlwaysPullImages}}\n  - {{name: disable-admission-plugins, value: 'PodSecurity,NodeRestriction'}}\n"
    );
    let folder = Folder::with(&text);
    let ran = folder.render();
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let said = [
        ":6:23: warning: controlPlaneEndpoint: 169.254.10.10 is link-local: only machines of the same network segment reach it",
        ":7:25: warning: networking.podSubnet: 10.244.0.0/24 has room for 1 node, each with a /24 of it: none is left for a worker\n    give it a prefix of /23",
        ":8:19: warning: dns.upstreams[0]: 10.96.0.53 lies in the service subnet 10.96.0.0/12: no other name resolves",
        ":8:31: warning: dns.upstreams[1]: 127.0.0.53 is each pod of CoreDNS itself, where nothing else answers",
        ":8:43: warning: dns.upstreams[2]: 10.244.0.53 lies in the pod subnet 10.244.0.0/24: no other name resolves",
        ":11:45: warning: apiServer.extraArgs[0].value: NodeRestriction is not in it: every kubelet could change the other nodes and their pods\n    unless that is meant, write NodeRestriction,AlwaysPullImages",
        ":12:46: warning: apiServer.extraArgs[1].value: without PodSecurity, `podSecurity` and the labels",
        ":12:46: warning: apiServer.extraArgs[1].value: without NodeRestriction, every kubelet could",
    ];
    for text in said {
        assert!(ran.stderr.contains(&format!("cluster.yaml{text}")), "{text}\n{ran:#?}");
    }
    let found = folder.run(&["validate", "--asset-dir", "assets"]);
    assert_eq!(found.code, Some(0), "{found:#?}");
    for text in said.map(|text| text.split_once("warning: ").unwrap().1) {
        assert!(found.stdout.contains(text), "{text}\n{found:#?}");
    }
}

/// Where a checkout has other ends of lines (git's `core.autocrlf`), nothing was edited.
#[test]
fn other_ends_of_lines_are_no_edit() {
    let folder = Folder::rendered(CLUSTER);
    folder.edit(DAEMONSET, "cpu: 250m", "cpu: 1");
    folder.render().ok();
    let paths: Vec<_> = folder
        .tree()
        .into_keys()
        .filter(|path| path.is_file() && !path.ends_with("cluster.yaml") || path.ends_with("assets/cluster.yaml"))
        .collect();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let mode = fs::metadata(path).unwrap().permissions();
        fs::write(path, text.replace('\n', "\r\n")).unwrap();
        fs::set_permissions(path, mode).unwrap();
    }
    let again = folder.unchanged(|| folder.render()).ok();
    assert!(
        again.ends_with("assets: 82 files, 0 of them written\n")
            && again.contains("kept your own manifests/kube-apiserver/daemonset.yaml"),
        "{again}"
    );
    assert_eq!(
        folder
            .unchanged(|| folder.run(&["render", "--config", "cluster.yaml", "--asset-dir", "assets", "--diff"]))
            .ok(),
        "# manifests/kube-apiserver/daemonset.yaml: kept, with your edit\n"
    );
    let found = folder.run(&["validate", "--asset-dir", "assets"]).ok();
    assert!(
        found.ends_with("assets: 0 errors, 1 warning\n") || found.ends_with("assets: nothing is wrong\n"),
        "{found}"
    );
    // What is read of it has the ends that a shell and the kubelet's unit want.
    let set = hoist::desired::assets::AssetSet::load(&folder.path("assets")).unwrap();
    assert!(set.files.values().all(|file| !file.content.contains(&b'\r')));

    // An edit and a change are brought together all the same.
    folder.put("cluster.yaml", format!("{CLUSTER}apiServer: {{extraArgs: [{{name: event-ttl, value: 2h}}]}}\n"));
    let merged = folder.render().ok();
    assert!(merged.contains("merged manifests/kube-apiserver/daemonset.yaml"), "{merged}");
    let text = folder.read(DAEMONSET);
    assert!(text.contains("cpu: 1\n") && text.contains("--event-ttl=2h") && !text.contains('\r'), "{text}");
}
