//! A machine that finds all it needs at its first boot: nobody types anything, and there is a cluster. The files of
//! `hoist render --first-boot` are checked and put on the disk by those whom they are for: Ignition and cloud-init.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::run;
use crate::support::node::{EXEC_LIMIT, Node, disk};
use crate::support::{cache, hoist};

const BINARY: &str = "/usr/local/bin/hoist";
const MINE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, namespace: default}\n";

/// By Ignition; and the next boot, after a power cut.
#[test]
fn first_boot() {
    let node = Node::off("first-boot");
    let cluster = Cluster::render(&node);
    cluster.add_manifest("mine.yaml", MINE);
    ignite(&node, &cluster.first_boot(&node, "ignition", "ign"));
    bare(&node);
    fs::copy(hoist(), disk(&node).join(BINARY.trim_start_matches('/'))).unwrap();

    node.boot();
    let said = until_up(&node);
    // Among much else; these two last for seconds.
    for title in ["the bridge serves the API: waiting for ", "hand over to the self-hosted controllers: waiting for "] {
        assert!(said.iter().any(|status| status.starts_with(title)), "{title}: {said:#?}");
    }
    assert_serves_itself(&node, &cluster);
    let status = node.sh("systemctl status --no-pager hoist");
    eprintln!("{status}");
    assert!(status.contains("Status: \"done in ") && status.contains("the cluster serves itself\""), "{status}");
    // On a machine that has all they name. The kubelet's is hoist's own: there was none.
    let verified = node.exec(["systemd-analyze", "verify", "--man=no", "hoist.service", "kubelet.service"]).expect(0);
    let ours = ["hoist.service", "kubelet.service"].map(|unit| format!("/etc/systemd/system/{unit}"));
    assert!(!ours.iter().any(|unit| verified.stderr.contains(unit)), "{verified}");
    node.sh("grep -q '^# How a kubelet must be run for hoist' /etc/systemd/system/kubelet.service");

    only_root_reads(&node);

    let kubectl = cluster.kubectl();
    kubectl.get(&["configmap", "-n", "default", "mine"]);
    kubectl.run(&["create", "configmap", "-n", "default", "written-before"]).ok();
    let before = identities(&cluster);
    node.power_cut();
    node.boot();
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    kubectl.get(&["configmap", "-n", "default", "written-before"]);
    assert_eq!(identities(&cluster), before, "nothing of the cluster was made anew, and no manifest applied again");
}

/// The same by cloud-init, which runs while systemd is already at work.
#[test]
fn first_boot_cloud_init() {
    let node = Node::off("cloud-init");
    let cluster = Cluster::render(&node);
    cluster.add_manifest("mine.yaml", MINE);
    seed(&node, &cluster.first_boot(&node, "cloud-init", "cloud-init.yaml"));
    bare(&node);

    node.boot();
    until_up(&node);
    assert_serves_itself(&node, &cluster);
    cluster.kubectl().get(&["configmap", "-n", "default", "mine"]);
    assert_eq!(node.sh("systemctl is-enabled hoist").trim(), "enabled");
    only_root_reads(&node);
    // Nor what cloud-init keeps of its user data.
    let kept = node.sh("grep -rl 'PRIVATE KEY' /var/lib/cloud /run/cloud-init /var/log | xargs stat -c %a | sort -u");
    assert_eq!(kept, "600\n");
}

/// The image that this machine is made from has a kubelet, and no unit for it.
fn bare(node: &Node) {
    let disk = disk(node);
    fs::remove_file(disk.join("usr/lib/systemd/system/kubelet.service")).unwrap();
    fs::remove_dir_all(disk.join("usr/lib/systemd/system/kubelet.service.d")).unwrap();
}

/// A folder of scripts/first-boot-tools.
fn tool(package: &str) -> PathBuf {
    let folder = cache().join("first-boot").join(package);
    assert!(folder.is_dir(), "{} is missing; run scripts/first-boot-tools", folder.display());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").args(["-a", "-T"]).arg(from).arg(to), EXEC_LIMIT).ok();
}

/// Ignition itself puts on the disk what its config says, as it does before a machine's first boot.
fn ignite(node: &Node, config: &Path) {
    let ignition = tool("ignition");
    run(Command::new(ignition.join("usr/bin/ignition-validate")).arg(config), EXEC_LIMIT).ok();
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("root");
    // It insists on labelling files for SELinux; here that does nothing.
    fs::create_dir_all(root.join("etc/selinux")).unwrap();
    fs::write(root.join("etc/selinux/config"), "SELINUX=disabled\nSELINUXTYPE=targeted\n").unwrap();
    std::os::unix::fs::symlink("/bin/true", work.path().join("setfiles")).unwrap();
    let path = format!("{}:{}", work.path().display(), std::env::var("PATH").unwrap());
    for stage in ["fetch", "files"] {
        let mut command = Command::new(ignition.join("usr/lib/dracut/modules.d/30ignition/ignition"));
        command
            .args(["-platform", "file", "-log-to-stdout", "-stage", stage])
            .env("IGNITION_CONFIG_FILE", config)
            .env("PATH", &path);
        for (flag, name) in
            [("-config-cache", "cache"), ("-state-file", "state"), ("-neednet", "neednet"), ("-root", "root")]
        {
            command.arg(flag).arg(work.path().join(name));
        }
        run(&mut command, EXEC_LIMIT).ok();
    }
    // It leaves the enabling to systemd's presets, which are for a machine that boots for the first time.
    run(Command::new("systemctl").arg("--root").arg(&root).args(["preset", "hoist.service"]), EXEC_LIMIT).ok();
    let (disk, units) = (disk(node), root.join("etc/systemd/system"));
    copy(&root.join("etc/hoist"), &disk.join("etc/hoist"));
    for unit in ["hoist.service", "multi-user.target.wants/hoist.service"] {
        copy(&units.join(unit), &disk.join("private/etc-systemd-system").join(unit));
    }
}

/// A module of the unpacked cloud-init, as a command.
fn python(cloud_init: &Path, module: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", module]).env("PYTHONPATH", cloud_init.join("usr/lib/python3/dist-packages"));
    command
}

/// Puts cloud-init on the node's disk, with user data for it; of its modules only those that these need.
fn seed(node: &Node, user_data: &Path) {
    let cloud_init = tool("cloud-init");
    let mut check = python(&cloud_init, "cloudinit.config.schema");
    let checked = run(check.arg("--config-file").arg(user_data), EXEC_LIMIT).ok();
    assert!(checked.contains("Valid cloud-config"), "{checked}");

    // The binary comes by another part. From the repository, which the node has, where the documentation says `curl`.
    let boothook = user_data.with_file_name("fetch.sh");
    let fetch =
        format!("#!/bin/sh\ntest -x {BINARY} && exit 0\ncp {} {BINARY} && chmod 755 {BINARY}\n", hoist().display());
    fs::write(&boothook, fetch).unwrap();
    let mut make_mime = python(&cloud_init, "cloudinit.cmd.main");
    make_mime.args(["devel", "make-mime"]);
    for (part, kind) in [(boothook.as_path(), "cloud-boothook"), (user_data, "cloud-config")] {
        make_mime.arg("-a").arg(format!("{}:{kind}", part.display()));
    }
    let user_data = run(&mut make_mime, EXEC_LIMIT).ok();

    let disk = disk(node);
    for (from, to) in [
        ("usr/bin/cloud-init", "usr/bin/cloud-init"),
        ("usr/lib/python3/dist-packages", "usr/lib/python3/dist-packages"),
        ("lib/systemd/system", "usr/lib/systemd/system"),
        ("etc/cloud/templates", "etc/cloud/templates"),
    ] {
        copy(&cloud_init.join(from), &disk.join(to));
    }
    let units = disk.join("private/etc-systemd-system");
    // As cloud-init's generator and its package enable them.
    for (unit, by) in [
        ("cloud-init.target", "multi-user.target"),
        ("cloud-init-local.service", "cloud-init.target"),
        ("cloud-init.service", "cloud-init.target"),
        ("cloud-config.service", "cloud-init.target"),
        ("cloud-final.service", "cloud-init.target"),
    ] {
        let wants = units.join(format!("{by}.wants"));
        fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink(Path::new("/lib/systemd/system").join(unit), wants.join(unit)).unwrap();
    }
    let put = |path: &str, text: &str| {
        fs::create_dir_all(disk.join(path).parent().unwrap()).unwrap();
        fs::write(disk.join(path), text).unwrap();
    };
    put(
        "etc/cloud/cloud.cfg",
        "datasource_list: [NoCloud]\nnetwork: {config: disabled}\nsystem_info: {distro: debian}\n\
         cloud_init_modules: [bootcmd, write-files]\ncloud_config_modules: [runcmd]\ncloud_final_modules: [scripts-user]\n",
    );
    put("var/lib/cloud/seed/nocloud/meta-data", &format!("instance-id: {}\n", node.name));
    put("var/lib/cloud/seed/nocloud/user-data", &user_data);
}

/// Nobody else, not even into the folder.
fn only_root_reads(node: &Node) {
    assert_eq!(node.sh("stat -c %a,%U /etc/hoist/assets").trim(), "700,root");
    assert_eq!(node.sh("find /etc/hoist/assets -type f -perm /077"), "");
}

/// Waits until the unit has done its work, at its first attempt; returns each status that it showed meanwhile.
fn until_up(node: &Node) -> BTreeSet<String> {
    let begun = Instant::now();
    let mut said = BTreeSet::new();
    loop {
        let show = "systemctl show hoist --property=ActiveState,SubState,NRestarts,StatusText,Result";
        let shown = node.sh(show);
        let value =
            |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
        said.insert(value("StatusText").to_owned());
        assert_eq!((value("NRestarts"), value("Result")), ("0", "success"), "{shown}");
        if (value("ActiveState"), value("SubState")) == ("active", "exited") {
            eprintln!("up {:.1?} after the node: {said:#?}", begun.elapsed());
            return said;
        }
        assert!(begun.elapsed() < START_LIMIT, "{shown}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Which objects of the control plane there are, and which version of each somebody has asked for.
fn identities(cluster: &Cluster) -> BTreeSet<String> {
    let objects = cluster.kubectl().list(&["-n", "kube-system", "daemonsets,deployments,secrets,serviceaccounts"]);
    let name = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        format!("{} {} {} {}", object["kind"], metadata["name"], metadata["uid"], metadata["generation"])
    };
    objects.iter().map(name).collect()
}
