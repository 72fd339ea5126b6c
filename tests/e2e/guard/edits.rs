//! The API server of the only controller is edited by kubectl. A good edit rolls by itself; a bad one leaves the API
//! served, and is undone by kubectl. No request fails.

use std::time::Duration;

use super::Controller;
use crate::serving::assert_serves_itself;
use crate::support::controller::NO_IMAGE;

/// How long what a bad edit has made is looked at.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn guard_edits() {
    let controller = Controller::up("guard-edits");
    good_edits(&controller);
    bad_edits(&controller);
    assert_serves_itself(&controller.node, &controller.cluster);
}

fn good_edits(controller: &Controller) {
    let traffic = controller.traffic();
    controller.add_flag("--event-ttl=2h");
    controller.rolled_out();
    controller.until_lowered();
    eprintln!("a new flag:");
    controller.nothing_failed(traffic);

    // A release that changes nothing but its number.
    let image = format!("registry.k8s.io/kube-apiserver:v{}", controller.node.kubernetes);
    controller.node.sh(&format!("ctr -n k8s.io images tag {image} {image}-1"));
    let traffic = controller.traffic();
    controller.set_image(&format!("{image}-1"));
    controller.rolled_out();
    controller.until_lowered();
    eprintln!("a new image:");
    controller.nothing_failed(traffic);
    let set = controller.daemon_set();
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], format!("{image}-1"));
    assert_eq!(set["status"]["numberReady"], 1, "{set}");
}

/// One after another, each while the bridge still stands for the one before: it stays as long as it takes.
fn bad_edits(controller: &Controller) {
    let traffic = controller.traffic();
    bad_edit(controller, "an image that does not exist", || controller.set_image(NO_IMAGE));
    bad_edit(controller, "an unknown flag", || controller.add_flag("--no-such-flag"));
    bad_edit(controller, "a wrong etcd address", || {
        replace(controller, "--etcd-servers=", "https://127.0.0.1:2999");
    });
    bad_edit(controller, "another port", || replace(controller, "--secure-port=", "6445"));
    controller.until_lowered();
    eprintln!("four bad edits:");
    controller.nothing_failed(traffic);
}

fn bad_edit(controller: &Controller, what: &str, edit: impl FnOnce()) {
    eprintln!("{what}");
    controller.edit_badly(edit);
    std::thread::sleep(A_WHILE);
    assert!(!controller.self_hosted_is_ready(), "{what}: it serves");
    assert!(controller.is_raised() && controller.is_served(), "{what}: {:?}", controller.manifests());
    tokens_can_be_checked(controller);
    controller.undo();
}

/// Whoever checks a service account's token asks whichever API server there is where its keys are.
fn tokens_can_be_checked(controller: &Controller) {
    let said = controller.kubectl.run(&["get", "--raw", "/.well-known/openid-configuration"]).ok();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["jwks_uri"], format!("https://{}:6443/openid/v1/jwks", controller.node.address));
}

/// Another value of a flag in the API server's command.
fn replace(controller: &Controller, flag: &str, value: &str) {
    controller.edit_command(|command| {
        let argument = command.iter_mut().find(|argument| argument.starts_with(flag)).unwrap();
        *argument = format!("{flag}{value}");
    });
}
