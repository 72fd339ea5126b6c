//! The container runtime, and whether it and the kubelet put processes into the same cgroups.

use std::time::Duration;

use super::Facts;
use crate::base::error::Finding;
use crate::desired::kubelet_config;
use crate::node::cri::{self, CgroupDriver, Runtime, Trouble};
use crate::node::kubelet;

/// How long it may take to answer: less than a check may.
const LIMIT: Duration = Duration::from_millis(700);

type Answer = Result<Runtime, Trouble>;

/// Where the kubelet's configuration says that the runtime is.
fn endpoint(facts: &Facts) -> &str {
    kubelet_config::runtime_endpoint(&facts.kubelet)
}

/// Its answer; one check asks, the others wait for it.
async fn answer(facts: &Facts) -> &Answer {
    let ask = || async {
        match endpoint(facts).strip_prefix("unix://") {
            Some(path) => cri::ask(&facts.host.path(path), LIMIT).await,
            None => Err(Trouble::Unreachable("it is not a unix:// socket".into())),
        }
    };
    facts.runtime.get_or_init(ask).await
}

/// Where it looks for CNI plugins, if it says so.
pub(super) async fn cni_bin_dirs(facts: &Facts) -> Vec<String> {
    answer(facts).await.as_ref().map(|runtime| runtime.cni_bin_dirs.clone()).unwrap_or_default()
}

/// Where it looks for the configuration of CNI, if it says so.
pub(super) async fn cni_conf_dir(facts: &Facts) -> Option<String> {
    answer(facts).await.as_ref().ok().and_then(|runtime| runtime.cni_conf_dir.clone())
}

pub(super) async fn answers(facts: &Facts) -> Vec<Finding> {
    judge_answer(answer(facts).await, endpoint(facts)).into_iter().collect()
}

fn judge_answer(answer: &Answer, endpoint: &str) -> Option<Finding> {
    const START: &str = "start it (`systemctl enable --now containerd`), or name the socket of another one: kubelet.config.containerRuntimeEndpoint in cluster.yaml";
    const LOOK: &str = "`journalctl -u containerd -n 50` may say why";
    let (message, remedy) = match answer {
        Ok(Runtime { not_ready: None, .. }) => return None,
        Ok(Runtime { name, not_ready: Some(reason), .. }) => {
            (format!("{name} says that it is not ready: {reason}"), LOOK)
        }
        Err(Trouble::Unreachable(reason)) => (format!("no container runtime can be reached: {reason}"), START),
        Err(Trouble::Refused(reason)) => (
            format!("what answers is not a container runtime for the kubelet: {reason}"),
            "containerd's configuration must not list cri among disabled_plugins",
        ),
        Err(Trouble::Silent) => {
            (format!("the container runtime has not answered within {} ms", LIMIT.as_millis()), LOOK)
        }
    };
    let finding = Finding::new(endpoint, message).remedy(remedy);
    // One that is only slow may still come.
    Some(if *answer == Err(Trouble::Silent) { finding.warning() } else { finding })
}

pub(super) async fn tells_its_driver(facts: &Facts) -> Vec<Finding> {
    judge_age(answer(facts).await).into_iter().collect()
}

fn judge_age(answer: &Answer) -> Option<Finding> {
    let Ok(Runtime { name, told_driver: None, .. }) = answer else { return None };
    let message = format!(
        "{name} does not tell the kubelet its cgroup driver (RuntimeConfig), which kubelets from 1.38 on ask for"
    );
    Some(Finding::new("", message).remedy("update it before you update the kubelet: containerd 2.0 and CRI-O 1.28 do"))
}

pub(super) async fn driver(facts: &Facts) -> Vec<Finding> {
    // The kubelet's own default is cgroupfs; hoist's configuration says systemd.
    let kubelets = match facts.kubelet.get("cgroupDriver").and_then(serde_json::Value::as_str) {
        Some("systemd") => CgroupDriver::Systemd,
        _ => CgroupDriver::Cgroupfs,
    };
    judge_driver(answer(facts).await, kubelets, kubelet::is_systemd(&facts.host)).into_iter().collect()
}

fn judge_driver(answer: &Answer, kubelets: CgroupDriver, is_systemd: bool) -> Option<Finding> {
    // What the runtime tells it, the kubelet does.
    let told = answer.as_ref().ok().and_then(|runtime| runtime.told_driver);
    if told.unwrap_or(kubelets) == CgroupDriver::Systemd && !is_systemd {
        let message = "the kubelet is to have its cgroups made by systemd, and systemd does not run here";
        return Some(Finding::new("", message).remedy(
            "kubelet.config.cgroupDriver: cgroupfs in cluster.yaml, and the same in the runtime's configuration",
        ));
    }
    let Ok(Runtime { name, told_driver: None, own_driver: Some(own), .. }) = answer else { return None };
    let message = format!("the kubelet's cgroup driver is {kubelets}, and that of {name} is {own}");
    let remedy = format!(
        "use one for both: kubelet.config.cgroupDriver: {own} in cluster.yaml, or SystemdCgroup = {} for runc in /etc/containerd/config.toml",
        kubelets == CgroupDriver::Systemd
    );
    (*own != kubelets).then(|| Finding::new("", message).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::CgroupDriver::{Cgroupfs, Systemd};
    use super::*;

    fn containerd(told_driver: Option<CgroupDriver>, own_driver: Option<CgroupDriver>) -> Answer {
        Ok(Runtime {
            name: "containerd 1.7.0".into(),
            not_ready: None,
            told_driver,
            own_driver,
            cni_bin_dirs: Vec::new(),
            cni_conf_dir: None,
        })
    }

    #[test]
    fn the_drivers_must_be_one_unless_the_runtime_tells_its_own() {
        let silent = Err(Trouble::Silent);
        for (answer, kubelets, is_systemd, expected) in [
            (containerd(None, Some(Systemd)), Systemd, true, None),
            (containerd(None, Some(Cgroupfs)), Cgroupfs, false, None),
            (containerd(None, None), Systemd, true, None),
            (containerd(Some(Cgroupfs), Some(Cgroupfs)), Systemd, false, None),
            (silent.clone(), Systemd, true, None),
            (
                containerd(None, Some(Cgroupfs)),
                Systemd,
                true,
                Some("is systemd, and that of containerd 1.7.0 is cgroupfs"),
            ),
            (
                containerd(None, Some(Systemd)),
                Cgroupfs,
                true,
                Some("is cgroupfs, and that of containerd 1.7.0 is systemd"),
            ),
            (containerd(Some(Systemd), None), Cgroupfs, false, Some("systemd does not run here")),
            (silent, Systemd, false, Some("systemd does not run here")),
        ] {
            let found = judge_driver(&answer, kubelets, is_systemd).map(|finding| finding.message);
            match expected {
                None => assert_eq!(found, None, "{answer:?}"),
                Some(text) => {
                    assert!(found.as_ref().is_some_and(|found| found.ends_with(text)), "{answer:?}: {found:?}")
                }
            }
        }
        let found = judge_driver(&containerd(None, Some(Cgroupfs)), Systemd, true).unwrap();
        let remedy = found.remedy.unwrap();
        assert!(remedy.contains("cgroupDriver: cgroupfs") && remedy.contains("SystemdCgroup = true"), "{remedy}");
    }

    #[test]
    fn a_runtime_must_answer_and_be_ready() {
        let judge = |answer: Answer| judge_answer(&answer, "unix:///x").map(|finding| said(&[finding])[0].clone());
        assert_eq!(judge(containerd(None, None)), None);
        let tired = Ok(Runtime { not_ready: Some("no shim".into()), ..containerd(None, None).unwrap() });
        assert_eq!(judge(tired).unwrap(), "unix:///x: containerd 1.7.0 says that it is not ready: no shim");
        let gone = Err(Trouble::Unreachable("Connection refused".into()));
        assert_eq!(judge(gone).unwrap(), "unix:///x: no container runtime can be reached: Connection refused");
        let slow = judge(Err(Trouble::Silent)).unwrap();
        assert_eq!(slow, "unix:///x: warning: the container runtime has not answered within 700 ms");
        assert!(
            judge(Err(Trouble::Refused("no".into()))).unwrap().contains("is not a container runtime for the kubelet")
        );
        assert!(judge_age(&containerd(None, None)).is_some());
        assert!(judge_age(&containerd(Some(Systemd), None)).is_none());
        assert!(judge_age(&Err(Trouble::Silent)).is_none(), "that is another check's");
    }

    #[tokio::test]
    async fn it_is_asked_where_the_kubelet_will_ask() {
        let machine = Machine::new();
        let found = answers(&machine.facts("")).await;
        assert!(found[0].to_string().starts_with("unix:///run/containerd/containerd.sock: no container runtime"));
        let found = answers(&machine.facts("containerRuntimeEndpoint: unix:///run/crio/crio.sock")).await;
        assert_eq!(found[0].place, "unix:///run/crio/crio.sock");
        let found = answers(&machine.facts("containerRuntimeEndpoint: tcp://x")).await;
        assert!(found[0].message.ends_with("it is not a unix:// socket"));
    }
}
