//! What a machine finds at its first boot. hoist's files are checked and put on the disk by those whom they are for:
//! Ignition and cloud-init, as scripts/debian-tools unpacks them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::command::run;
use super::node::{EXEC_LIMIT, Node, disk};
use super::unpacked;

/// Where a node's disk has what does not lie at its own path: see scripts/node --help.
const ELSEWHERE: [(&str, &str); 2] =
    [("etc/systemd/system", "private/etc-systemd-system"), ("etc/kubernetes", "private/etc-kubernetes")];

/// Lays a file or a folder over another.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").args(["-a", "-T"]).arg(from).arg(to), EXEC_LIMIT).ok();
}

/// Ignition itself puts on the disk what its config says, as it does before a machine's first boot, a unit among it.
pub fn ignite(node: &Node, config: &Path, unit: &str) {
    let ignition = unpacked("ignition");
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
    run(Command::new("systemctl").arg("--root").arg(&root).args(["preset", unit]), EXEC_LIMIT).ok();
    fs::remove_dir_all(root.join("etc/selinux")).unwrap();
    let disk = disk(node);
    for (path, place) in ELSEWHERE {
        if root.join(path).exists() {
            copy(&root.join(path), &disk.join(place));
            fs::remove_dir_all(root.join(path)).unwrap();
        }
    }
    for folder in ["etc", "var"] {
        if root.join(folder).exists() {
            copy(&root.join(folder), &disk.join(folder));
        }
    }
}

/// A module of the unpacked cloud-init, as a command.
fn python(cloud_init: &Path, module: &str) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-m", module]).env("PYTHONPATH", cloud_init.join("usr/lib/python3/dist-packages"));
    command
}

/// Puts cloud-init on the node's disk, with user data for it, and a script that it runs at every boot, first of all; of
/// its modules only those that these need.
pub fn seed(node: &Node, user_data: &Path, boothook: Option<&str>) {
    let cloud_init = unpacked("cloud-init");
    let mut check = python(&cloud_init, "cloudinit.config.schema");
    let checked = run(check.arg("--config-file").arg(user_data), EXEC_LIMIT).ok();
    assert!(checked.contains("Valid cloud-config"), "{checked}");

    let mut make_mime = python(&cloud_init, "cloudinit.cmd.main");
    make_mime.args(["devel", "make-mime"]);
    if let Some(script) = boothook {
        let path = user_data.with_file_name("boothook.sh");
        fs::write(&path, script).unwrap();
        make_mime.arg("-a").arg(format!("{}:cloud-boothook", path.display()));
    }
    make_mime.arg("-a").arg(format!("{}:cloud-config", user_data.display()));
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

/// The image that this machine is made from has a kubelet, and no unit for it.
pub fn bare(node: &Node) {
    let disk = disk(node);
    fs::remove_file(disk.join("usr/lib/systemd/system/kubelet.service")).unwrap();
    fs::remove_dir_all(disk.join("usr/lib/systemd/system/kubelet.service.d")).unwrap();
}
