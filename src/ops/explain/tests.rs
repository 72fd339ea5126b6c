use super::*;
use crate::node::system;

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

fn manifest(kind: &str, name: &str, path: &str) -> Manifest {
    let object = serde_json::json!({"kind": kind, "metadata": {"name": name, "namespace": "kube-system"}});
    Manifest { path: path.into(), line: 1, object }
}

/// What commands of a controller at 10.0.0.1 look like whose kubeconfig leads to `server`.
fn subject(server: &str) -> Subject {
    let host = system::host(Path::new("/"), Path::new("/etc/kubernetes/manifests"));
    let required: Required = "kube-system/kube-apiserver".parse().unwrap();
    let manifests = [
        manifest("DaemonSet", "kube-apiserver", "manifests/kube-apiserver/daemonset.yaml"),
        manifest("Secret", "kube-apiserver", "manifests/kube-apiserver/secret.yaml"),
    ];
    let context = Context {
        host: &host,
        node: "c1",
        address: IpAddr::from([10, 0, 0, 1]),
        asset_dir: Path::new("/root/assets"),
        manifests: &manifests,
        kubeconfig: &format!("clusters:\n- cluster:\n    server: \"{server}\"\n"),
        required: std::slice::from_ref(&required),
    };
    context.subject(&required, "DaemonSet", "kube-apiserver-x", "kube-apiserver")
}

#[test]
fn what_to_type_can_be_typed() {
    let own = subject("https://10.0.0.1:6443");
    assert_eq!(own.kubectl, "kubectl --kubeconfig /root/assets/auth/kubeconfig");
    assert_eq!(
        own.edit,
        "`kubectl --kubeconfig /root/assets/auth/kubeconfig -n kube-system edit daemonset/kube-apiserver`, or in /root/assets/manifests/kube-apiserver/daemonset.yaml"
    );
    assert!(own.renew_secret.contains("--replace manifests/kube-apiserver/secret.yaml"), "{}", own.renew_secret);
    let elsewhere = subject("https://api.example.com:6443");
    assert!(elsewhere.kubectl.ends_with(" --server https://10.0.0.1:6443"), "{}", elsewhere.kubectl);
}

#[test]
fn a_trouble_is_told_with_its_states_its_last_words_and_its_cause() {
    let trouble = Trouble {
        who: "kube-system/kube-apiserver-x on c1".into(),
        states: vec!["container kube-apiserver: CrashLoopBackOff: back-off 10s; restarted 2 times".into()],
        logs: vec![(
            "the last lines of kube-apiserver".into(),
            lines("Usage: …\n\nError: unknown flag: --no-such-flag"),
        )],
        events: vec!["BackOff: Back-off restarting failed container (×3)".into()],
        ..Trouble::default()
    };
    let cause = trouble.cause(&subject("https://10.0.0.1:6443")).unwrap();
    let expected = "\
kube-system/kube-apiserver-x on c1
  container kube-apiserver: CrashLoopBackOff: back-off 10s; restarted 2 times
  the last lines of kube-apiserver:
    Usage: …
    Error: unknown flag: --no-such-flag
  its events, the newest first:
    BackOff: Back-off restarting failed container (×3)
  likely cause: kube-apiserver does not know the flag --no-such-flag";
    assert_eq!(trouble.lines(Some(&cause)).join("\n"), expected);
    let explanation = Explanation { lines: Vec::new(), cause: Some((trouble.who, cause)) };
    assert_eq!(
        explanation.hint().unwrap(),
        "kube-system/kube-apiserver-x on c1: likely cause: kube-apiserver does not know the flag --no-such-flag"
    );
}

#[test]
fn lines_that_say_the_same_again_are_shown_once_and_the_one_that_tells_the_cause_in_any_case() {
    let mut log = vec!["F0101 open /nope: no such file".to_owned()];
    log.extend((0..40).map(|number| format!("W{number} retry {number}")));
    log.extend("a\nb\nc\nd\n".lines().map(str::to_owned));
    assert_eq!(telling(&log, None), ["W39 retry 39", "a", "b", "c", "d"]);
    assert_eq!(telling(&log, Some(&log[0])), ["F0101 open /nope: no such file", "W39 retry 39", "a", "b", "c", "d"]);
}

#[test]
fn an_early_line_of_a_long_log_tells_no_cause() {
    let mut log = vec!["dial tcp 127.0.0.1:2379: connect: connection refused".to_owned()];
    let trouble = |log: &[String]| Trouble { logs: vec![("log".into(), log.to_vec())], ..Trouble::default() };
    assert!(trouble(&log).cause(&Subject::default()).is_some(), "etcd is not there");
    log.extend((0..LOOKED_THROUGH).map(|number| format!("line {number}")));
    assert!(trouble(&log).cause(&Subject::default()).is_none(), "it came");
}
