//! The Terraform example of the documentation, as it stands: real terraform, real sshd, a real node.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use nix::sys::signal::Signal;

use crate::serving::assert_serves_itself;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::{Ended, Running, run};
use crate::support::node::{EXEC_LIMIT, Node};
use crate::support::{eventually, hoist, repository};

const EXAMPLE: &str = "docs/examples/terraform";

#[test]
fn terraform() {
    let terraform =
        program("terraform", "developer.hashicorp.com/terraform/install has it; it downloads no provider here");
    program("sshd", "Debian's package openssh-server; `scripts/test e2e terraform` installs it");
    let node = Node::up("terraform");
    let cluster = Cluster::render(&node);
    let module = Module::make(&terraform, &node, &cluster);

    a_failing_apply_names_the_cause(&module, &node);
    a_cancelled_apply_is_gone_on_with(&module, &node);
    assert_serves_itself(&node, &cluster);
    let again = module.apply().wait(START_LIMIT);
    assert!(again.stdout.contains("Resources: 0 added, 0 changed, 0 destroyed."), "{again}");
    again.expect(0);
    // A change reaches the controller's disk, and the cluster that is up stays as it is.
    fs::remove_file(cluster.assets.join("manifests/kubelet/rbac.yaml")).unwrap();
    cluster.add_manifest("mine.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine, namespace: default}\n");
    module.apply().wait(START_LIMIT).ok();
    node.sh("cd /etc/hoist/assets/manifests; test -e mine.yaml; test ! -e kubelet/rbac.yaml");
    assert_serves_itself(&node, &cluster);
    keys_are_where_they_belong(&module, &node, &cluster);
}

/// The path of a program.
fn program(name: &str, remedy: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/bin:/usr/sbin";
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: {remedy}"))
}

/// A copy of the example, for a node.
struct Module {
    terraform: PathBuf,
    dir: PathBuf,
}

impl Module {
    fn make(terraform: &Path, node: &Node, cluster: &Cluster) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-module", node.name));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(repository().join(EXAMPLE)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("key")), EXEC_LIMIT)
            .ok();
        let public = fs::read_to_string(dir.join("key.pub")).unwrap();
        node.sh(&format!("install -d -m 700 /root/.ssh; echo '{}' >/root/.ssh/authorized_keys", public.trim()));
        let host_key = node.sh("ssh-keygen -A >&2; systemctl start ssh; cat /etc/ssh/ssh_host_ecdsa_key.pub");
        let (address, assets, hoist): (IpAddr, _, _) = (node.address, cluster.assets.display(), hoist());
        let variables = format!(
            "address = \"{address}\"\nprivate_key_file = \"key\"\nhost_key = \"{}\"\nasset_dir = \"{assets}\"\nhoist = \"{}\"\n",
            host_key.trim(),
            hoist.display()
        );
        fs::write(dir.join("terraform.tfvars"), variables).unwrap();
        let module = Self { terraform: terraform.to_owned(), dir };
        run(&mut module.command(&["init", "-input=false", "-no-color"]), EXEC_LIMIT).ok();
        run(&mut module.command(&["fmt", "-check", "-diff", "main.tf", "variables.tf"]), EXEC_LIMIT).ok();
        module
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.terraform);
        // Nothing of the developer's own.
        command.args(args).current_dir(&self.dir).env("TF_CLI_CONFIG_FILE", "/dev/null").env("CHECKPOINT_DISABLE", "1");
        command
    }

    fn apply(&self) -> Running {
        Running::spawn(&mut self.command(&["apply", "-auto-approve", "-input=false", "-no-color"]), "")
    }
}

#[track_caller]
fn says(ended: &Ended, texts: &[&str]) {
    for text in texts {
        assert!(ended.stdout.contains(text), "it does not say {text:?}: {ended}");
    }
}

fn a_failing_apply_names_the_cause(module: &Module, node: &Node) {
    let holder = node.spawn(["busybox", "nc", "-l", "-p", "6443"]);
    let held = || node.sh("ss -ltnpH 'sport = :6443'");
    eventually("the port is held", Duration::from_secs(10), || (!held().is_empty()).then_some(()));
    // On a machine that is busy the journal learns what hoist said only after hoist has ended.
    let kill = "systemctl kill systemd-journald --signal";
    node.sh(&format!("{kill}=STOP; systemd-run -q --timer-property=AccuracySec=100ms --on-active=6 {kill}=CONT"));
    let apply = module.apply().wait(START_LIMIT).expect(1);
    eprintln!("{apply}");
    let finding = "hoist: this machine is not ready; nothing was changed";
    says(&apply, &[finding, "is held by busybox (pid ", "`ss -ltnp sport = :6443` shows it", "exit code 4"]);
    holder.kill();
    eventually("the port is free", Duration::from_secs(10), || held().is_empty().then_some(()));
}

/// Terraform stops at once; hoist, which systemd runs, does not; and the next apply joins in.
fn a_cancelled_apply_is_gone_on_with(module: &Module, node: &Node) {
    let apply = module.apply();
    eventually("hoist is at work", START_LIMIT, || apply.said().contains("the bridge serves the API").then_some(()));
    apply.signal(Signal::SIGINT);
    let apply = apply.wait(Duration::from_secs(60)).expect(1);
    eprintln!("{apply}");
    says(&apply, &["Interrupt received."]);
    let state = node.sh("systemctl show hoist --property=ActiveState,Result");
    assert!(state.contains("activ") && state.contains("Result=success"), "{state}");

    let apply = module.apply().wait(START_LIMIT).expect(0);
    eprintln!("{apply}");
    says(&apply, &["Resources: 1 added, 0 changed, 1 destroyed.", "the cluster serves itself"]);
}

/// On the node, for root alone; in what Terraform keeps, nowhere.
fn keys_are_where_they_belong(module: &Module, node: &Node, cluster: &Cluster) {
    assert_eq!(node.sh("find /etc/hoist -perm /077"), "");
    assert_eq!(node.sh("ls -A /etc/hoist"), "assets\n");
    let mut kept = String::new();
    for name in ["terraform.tfstate", "terraform.tfstate.backup"] {
        kept += &fs::read_to_string(module.dir.join(name)).unwrap();
    }
    assert!(kept.contains("triggers_replace") && !kept.contains("PRIVATE KEY"), "{kept}");
    let keys = node.sh("find /etc/hoist/assets/tls -name '*.key' -printf '%P\\n'");
    assert!(keys.lines().count() > 10, "{keys}");
    for key in keys.lines() {
        let pem = fs::read_to_string(cluster.assets.join("tls").join(key)).unwrap();
        let whole = base64::engine::general_purpose::STANDARD.encode(&pem);
        // A part of it in any form: as it stands, or as a Secret has it.
        let body = pem.lines().nth(1).unwrap();
        for part in [body, &whole[40..80]] {
            assert!(part.len() >= 40 && !kept.contains(part), "{key} is in Terraform's state");
        }
    }
}
