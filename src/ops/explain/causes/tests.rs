//! Every row, by what Kubernetes 1.36, etcd 3.6, containerd and runc really say.

use std::collections::BTreeSet;

use super::*;

fn subject() -> Subject {
    Subject {
        container: "kube-apiserver".into(),
        pod: "kube-apiserver-x1".into(),
        namespace: "kube-system".into(),
        workload: "daemonset/kube-apiserver".into(),
        node: "c1".into(),
        kubectl: "kubectl".into(),
        edit: "EDIT".into(),
        renew_secret: "RENEW".into(),
    }
}

/// A message, and what is made of it.
const MESSAGES: &[(&str, &str)] = &[
    ("Error: unknown flag: --no-such-flag", "kube-apiserver does not know the flag --no-such-flag"),
    ("flag provided but not defined: -no-flag", "kube-apiserver does not know the flag -no-flag"),
    (
        r#"Error: invalid argument "abc" for "--secure-port" flag: strconv.ParseInt: parsing "abc": invalid syntax"#,
        r#""abc" is not a value that kube-apiserver takes for the flag --secure-port: strconv.ParseInt: parsing "abc": invalid syntax"#,
    ),
    (
        r#"Error: invalid argument "abc" for "--event-ttl" flag: time: invalid duration "abc""#,
        r#""abc" is not a value that kube-apiserver takes for the flag --event-ttl: time: invalid duration "abc""#,
    ),
    (
        r#"E1121 11:52:17.056630    8501 run.go:72] "command failed" err="unrecognized feature gate: Nope""#,
        "this version of kube-apiserver has no feature gate Nope",
    ),
    (
        r#"E1121 11:52:17.002527    8490 run.go:72] "command failed" err="[service-account-issuer is a required flag, authorization-mode \"Foo\" is not a valid mode]""#,
        r#"kube-apiserver does not accept its flags: service-account-issuer is a required flag, authorization-mode "Foo" is not a valid mode"#,
    ),
    (
        r#"InvalidImageName: Failed to apply default image tag "BAD/Image:::": couldn't parse image name "BAD/Image:::": invalid reference format: repository name (Image) must be lowercase"#,
        "the image's name is not a valid reference",
    ),
    (
        r#"ErrImageNeverPull: Container image "registry.k8s.io/nope:1" is not present with pull policy of Never"#,
        "the image is not on the node",
    ),
    (
        r#"Failed to pull image "snj": failed to pull and unpack image "docker.io/library/snj:latest": failed to resolve reference "docker.io/library/snj:latest": pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed"#,
        "the registry does not let this node pull docker.io/library/snj:latest",
    ),
    (
        r#"failed to pull and unpack image "k8s.m.daocloud.io/coredns:v1.10.1": failed to resolve reference "k8s.m.daocloud.io/coredns:v1.10.1": unexpected status from HEAD request to https://k8s.m.daocloud.io/v2/coredns/manifests/v1.10.1: 403 Forbidden"#,
        "the registry does not let this node pull k8s.m.daocloud.io/coredns:v1.10.1",
    ),
    (
        r#"ImagePullBackOff: Back-off pulling image "127.0.0.1:2381/x:1": ErrImagePull: rpc error: code = NotFound desc = failed to pull and unpack image "127.0.0.1:2381/x:1": failed to resolve reference "127.0.0.1:2381/x:1": 127.0.0.1:2381/x:1: not found"#,
        "the registry has no image 127.0.0.1:2381/x:1",
    ),
    (
        r#"Failed to pull image "pvt-registry.com/nginx:latest": failed to pull and unpack image "pvt-registry.com/nginx:latest": failed to resolve reference "pvt-registry.com/nginx:latest": failed to do request: Head "https://pvt-registry.com/v2/nginx/manifests/latest": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
        "c1 does not trust the certificate of the registry of pvt-registry.com/nginx:latest: x509: certificate signed by unknown authority",
    ),
    (
        r#"ImagePullBackOff: Back-off pulling image "registry.k8s.io/kube-apiserver:v9.9.9": ErrImagePull: failed to pull and unpack image "registry.k8s.io/kube-apiserver:v9.9.9": failed to resolve reference "registry.k8s.io/kube-apiserver:v9.9.9": failed to do request: Head "https://registry.k8s.io/v2/kube-apiserver/manifests/v9.9.9": dial tcp: lookup registry.k8s.io on [::1]:53: read udp [::1]:43742->[::1]:53: read: connection refused"#,
        "c1 cannot reach the registry of registry.k8s.io/kube-apiserver:v9.9.9: dial tcp: lookup registry.k8s.io on [::1]:53: read udp [::1]:43742->[::1]:53: read: connection refused",
    ),
    (
        // As the kubelet's journal has it, quoted twice.
        r#"E1121 12:00:00.000000 1 pod_workers.go:1324] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"kube-apiserver\" with ErrImagePull: \"failed to pull and unpack image \\\"10.10.0.250/x:1\\\": failed to resolve reference \\\"10.10.0.250/x:1\\\": failed to do request: Head \\\"https://10.10.0.250/v2/x/manifests/1\\\": dial tcp 10.10.0.250:443: connect: no route to host\"" pod="kube-system/bridge-kube-apiserver-c1""#,
        "c1 cannot reach the registry of 10.10.0.250/x:1: dial tcp 10.10.0.250:443: connect: no route to host",
    ),
    (
        r#"W1121 11:49:02.599361       1 logging.go:55] [core] [Channel #7 SubChannel #9] grpc: addrConn.createTransport failed to connect to {Addr: "127.0.0.1:2379", ServerName: "127.0.0.1:2379", }. Err: connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: x509: certificate signed by unknown authority""#,
        "etcd's certificate is not signed by the CA that kube-apiserver trusts",
    ),
    (
        r#"W1121 11:49:02.599361       1 logging.go:55] [core] [Channel #7 SubChannel #9] grpc: addrConn.createTransport failed to connect to {Addr: "127.0.0.1:2379", ServerName: "127.0.0.1:2379", }. Err: connection error: desc = "error reading server preface: remote error: tls: bad certificate""#,
        "etcd refuses the client certificate of kube-apiserver",
    ),
    (
        r#"W1121 11:52:35.405966    8522 logging.go:55] [core] [Channel #1 SubChannel #4] grpc: addrConn.createTransport failed to connect to {Addr: "127.0.0.1:2379", ServerName: "127.0.0.1:2379", }. Err: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:2379: connect: connection refused""#,
        "etcd does not answer",
    ),
    (
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2020-01-01T00:00:00Z is before 2026-11-21T11:00:00Z",
        "a certificate is valid only from 2026-11-21T11:00:00Z on, and the clock says 2020-01-01T00:00:00Z",
    ),
    (
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2027-12-01T00:00:00Z is after 2027-11-21T11:00:00Z",
        "a certificate was valid until 2027-11-21T11:00:00Z, and the clock says 2027-12-01T00:00:00Z",
    ),
    (
        r#"error retrieving resource lock: Get "https://10.0.0.9:6443/apis": tls: failed to verify certificate: x509: certificate is valid for 10.96.0.1, 10.0.0.1, 127.0.0.1, not 10.0.0.9"#,
        "a server's certificate is for 10.96.0.1, 10.0.0.1, 127.0.0.1, and its client called it 10.0.0.9",
    ),
    (
        r#"Get "https://127.0.0.1:6443/api": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
        "a certificate is not signed by the CA that kube-apiserver trusts",
    ),
    (
        r#""command failed" err="tls: private key does not match public key""#,
        "a certificate and its key do not belong together",
    ),
    (
        r#"E1121 11:52:39.083454    9577 run.go:72] "command failed" err="failed to create listener: failed to listen on 0.0.0.0:6443: listen tcp 0.0.0.0:6443: bind: address already in use""#,
        "another process listens at 0.0.0.0:6443 already",
    ),
    (
        "Pending: 0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available",
        "another pod of every node has the host port",
    ),
    (
        r#"FailedCreate: Error creating: pods "d-847cfcdb45-2gc74" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"#,
        "the ResourceQuota q of kube-system is used up: pods=1 requested, pods=0 allowed",
    ),
    (
        r#"FailedCreate: Error creating: pods "d-847cfcdb45-hs6g6" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)"#,
        "the namespace kube-system enforces the Pod Security Standard restricted:latest, and the pod violates it: host namespaces (hostNetwork=true)",
    ),
    (
        r#"FailedCreate: Error creating: admission webhook "policy.example.com" denied the request: images must come from example.com"#,
        "the admission webhook policy.example.com refuses it: images must come from example.com",
    ),
    (
        r#"FailedCreate: Error creating: Internal error occurred: failed calling webhook "a.example.com": failed to call webhook: Post "https://10.10.0.1:9/x?timeout=10s": dial tcp 10.10.0.1:9: connect: connection refused"#,
        "the admission webhook a.example.com cannot be reached",
    ),
    (
        r#"FailedCreate: Error creating: pods "d-85c7c95d69-" is forbidden: error looking up service account saless/nope: serviceaccount "nope" not found"#,
        "the ServiceAccount saless/nope is missing",
    ),
    (
        r#"FailedCreate: Error creating: pods "d-85c7c95d69-" is forbidden: no PriorityClass with name nope was found"#,
        "the PriorityClass nope is missing",
    ),
    (
        "there is no DaemonSet, Deployment, StatefulSet or Pod kube-system/kube-apiserver",
        "kube-system/kube-apiserver is not in the cluster",
    ),
    ("the DaemonSet has not been seen by a controller manager yet", "no controller manager is at work"),
    ("Pending: no scheduler has looked at it yet", "no scheduler is at work, so kube-apiserver-x1 gets no node"),
    (
        "the DaemonSet wants no pod, for no node fits: its nodeSelector asks for the label disk=ssd, which c1 has not",
        "no node fits daemonset/kube-apiserver, so it gets no pod: its nodeSelector asks for the label disk=ssd, which c1 has not",
    ),
    (
        "Pending: 0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        "no node has enough cpu left",
    ),
    (
        "FailedScheduling: 0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available",
        "the nodes are full",
    ),
    (
        "Pending: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        "no node has the labels",
    ),
    (
        "Pending: 0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        "every node has a taint that it does not tolerate",
    ),
    (
        "Pending: 0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }. preemption: 0/1",
        "every node has a taint that it does not tolerate",
    ),
    ("FailedScheduling: no nodes available to schedule pods", "no node is registered"),
    (
        r#"FailedMount: MountVolume.SetUp failed for volume "v" : secret "nope" not found"#,
        "the Secret, or the key in it, that it names is missing: nope",
    ),
    (
        r#"CreateContainerConfigError: configmap "nope" not found"#,
        "the ConfigMap, or the key in it, that it names is missing: nope",
    ),
    (
        r#"FailedMount: MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: nokey"#,
        "the ConfigMap, or the key in it, that it names is missing: nokey",
    ),
    (
        r#"FailedMount: MountVolume.SetUp failed for volume "v" : hostPath type check failed: /nope/nope is not a directory"#,
        "c1 has no directory /nope/nope",
    ),
    (
        "NetworkNotReady: network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
        "c1 has no CNI configuration",
    ),
    ("NodeNotReady: Node is not ready", "c1 is not ready"),
    (
        "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: can't get final child's PID from pipe: EOF: unknown",
        "runc could not start the container's first process",
    ),
    (
        r#"failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/kubepods/besteffort/pod1/2" instead: unknown"#,
        "the kubelet and the container runtime on c1 use different cgroup drivers",
    ),
    (
        "container kube-apiserver: CrashLoopBackOff; restarted 3 times; the last time it ended with exit code 137 (OOMKilled)",
        "kube-apiserver was killed because it used more memory than it may",
    ),
    ("write /var/lib/etcd/member/wal/0.tmp: no space left on device", "a disk of c1 is full"),
    ("touch: /x: Read-only file system", "kube-apiserver writes to a file system that is read-only"),
    ("open /var/log/audit.log: read-only file system", "kube-apiserver writes to a file system that is read-only"),
    (
        r#"RunContainerError: failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope/prog": stat /nope/prog: no such file or directory: unknown"#,
        "the image has no program /nope/prog",
    ),
    (
        r#"RunContainerError: failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: "/etc/passwd": permission denied: unknown"#,
        "/etc/passwd of the image may not be run",
    ),
    (
        r#"CreateContainerConfigError: container has runAsNonRoot and image will run as root (pod: "nonroot_default(c7853552)", container: c)"#,
        "the pod says runAsNonRoot, and the image runs as root",
    ),
    (
        r#""command failed" err="open /etc/kubernetes/secrets/apiserver.key: permission denied""#,
        "kube-apiserver may not use /etc/kubernetes/secrets/apiserver.key",
    ),
    (
        r#"run.go:72] "command failed" err="open /nope.crt: no such file or directory""#,
        "kube-apiserver has no file /nope.crt",
    ),
    (r#"run.go:72] "command failed" err="stat /nope: no such file or directory""#, "kube-apiserver has no file /nope"),
    (
        r#"leases.coordination.k8s.io "kube-scheduler" is forbidden: User "system:kube-scheduler" cannot get resource "leases" in API group"#,
        r#"the RBAC rules do not allow system:kube-scheduler to get resource "leases" in API group"#,
    ),
    (
        r#"E1121 11:52:37.827022    8522 run.go:72] "command failed" err="error creating storage factory: context deadline exceeded""#,
        "etcd does not answer kube-apiserver",
    ),
    (
        "FailedCreatePodSandBox: Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox image",
        "the container runtime on c1 could not start it: rpc error: code = Unknown desc = failed to get sandbox image",
    ),
    (
        "the image registry.k8s.io/kube-apiserver:v1.36.3 of the static pod bridge-kube-apiserver is not on this machine; `crictl pull x`",
        "the image registry.k8s.io/kube-apiserver:v1.36.3 of the static pod bridge-kube-apiserver is not on this machine",
    ),
    (
        "etcd has raised the alarm NOSPACE: its database has 16 MiB of 16 MiB, and it takes no more writes; delete, and then: `x`",
        "the quota of etcd's database is reached: its database has 16 MiB of 16 MiB",
    ),
    (
        "etcd has raised the alarm CORRUPT: its members' data differs, and it takes no more requests; `hoist recover`",
        "etcd has raised the alarm CORRUPT: its members' data differs",
    ),
    (
        r#"E1121 11:52:37.827022    8522 leaderelection.go:448] "Failed to update lease" err="etcdserver: mvcc: database space exceeded""#,
        "the quota of etcd's database is reached, and it takes no more writes",
    ),
    ("etcdserver: corrupt cluster", "etcd has found that its data is corrupt"),
    ("Internal error occurred: etcdserver: request is too large", "an object is larger than etcd accepts"),
    (
        "etcd's data is not in /var/lib/etcd: mount the disk",
        "etcd's data is not in /var/lib/etcd, and its pod waits for it",
    ),
    ("sh: can't create /x: permission denied", "kube-apiserver may not do what it has to"),
    (
        "Killing: Container kube-apiserver failed liveness probe, will be restarted",
        "kube-apiserver runs, but does not answer its probe in time",
    ),
];

#[test]
fn every_message_has_its_cause() {
    for (message, expected) in MESSAGES {
        let found = find([*message], &subject()).unwrap_or_else(|| panic!("nothing is made of {message:?}"));
        assert!(found.cause.starts_with(expected), "{message:?}\nis {:?},\nnot {expected:?}", found.cause);
        assert_eq!(found.shown_by, *message);
        let said = format!("{} {}", found.cause, found.next);
        let unfilled = (1..9).any(|number| said.contains(&format!("{{{number}}}")));
        assert!(!unfilled && !said.contains("{edit}") && !found.next.is_empty(), "{said}");
    }
}

#[test]
fn every_row_has_its_message() {
    let row = |message: &str| {
        let line = message.replace('\\', "");
        TABLE.iter().position(|known| known.shown_by.iter().any(|pattern| captures(pattern, &line).is_some()))
    };
    let shown: BTreeSet<_> = MESSAGES.iter().filter_map(|(message, _)| row(message)).collect();
    let without: Vec<_> = (0..TABLE.len()).filter(|row| !shown.contains(row)).map(|row| TABLE[row].cause).collect();
    assert!(without.is_empty(), "rows that no message shows: {without:#?}");
}

#[test]
fn every_pattern_captures_what_its_row_tells() {
    for known in TABLE {
        let said = format!("{} {}", known.cause, known.next);
        let named = (1..9).filter(|number| said.contains(&format!("{{{number}}}"))).max().unwrap_or(0);
        for pattern in known.shown_by {
            assert!(pattern.matches("{}").count() >= named, "{pattern:?} captures too little for {said:?}");
        }
    }
}

#[test]
fn what_is_not_known_has_no_cause() {
    assert_eq!(find(["I1121 12:00:00 server.go:150] Version: v1.36.3", ""], &subject()), None);
}

#[test]
fn a_row_further_up_wins_and_then_the_earlier_text() {
    let texts = ["x: permission denied", "Error: unknown flag: --a", "Error: unknown flag: --b"];
    assert_eq!(find(texts, &subject()).unwrap().shown_by, "Error: unknown flag: --a");
}

#[test]
fn what_hoist_itself_says_of_a_workload_is_known() {
    for said in [WANTS_NO_POD, NOT_TAKEN_UP, NOT_LOOKED_AT] {
        assert!(find([said], &subject()).is_some(), "{said}");
    }
}
