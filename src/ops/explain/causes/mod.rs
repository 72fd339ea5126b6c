//! The known causes: what a log line, an event or a container's state says, in plain words, with what to do about it.
//! A table and nothing else: text in, cause and next command out.

use std::borrow::Cow;

/// A row of the table.
struct Known {
    /// Texts that show it: `{}` stands for anything, and the first is `{1}` in what follows.
    shown_by: &'static [&'static str],
    /// What it means. Besides `{1}`, … it may name what [`Subject`] knows.
    cause: &'static str,
    /// What to type or to edit.
    next: &'static str,
}

/// Who it is about, as the texts of the table name it.
#[derive(Debug, Default, Clone)]
pub struct Subject {
    /// The container, or the program.
    pub container: String,
    /// The pod; empty if there is none.
    pub pod: String,
    /// The workload's namespace.
    pub namespace: String,
    /// `daemonset/kube-apiserver`.
    pub workload: String,
    /// The node that it runs, or should run, on.
    pub node: String,
    /// kubectl with the administrator's kubeconfig, to begin a command with.
    pub kubectl: String,
    /// How its manifest is edited: a command, a file, or both.
    pub edit: String,
    /// How the Secret that it mounts is made anew.
    pub renew_secret: String,
}

/// What was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// In plain words.
    pub cause: String,
    /// What to do.
    pub next: String,
    /// The text that showed it.
    pub shown_by: String,
}

/// The first row of the table that one of `texts` shows. Of several texts, the earlier ones weigh more.
pub fn find<'a>(texts: impl IntoIterator<Item = &'a str> + Clone, subject: &Subject) -> Option<Cause> {
    TABLE.iter().find_map(|known| {
        texts.clone().into_iter().find_map(|text| {
            // Quotes within quotes are escaped, once for each level.
            let line: Cow<'_, str> = if text.contains('\\') { text.replace('\\', "").into() } else { text.into() };
            let found = known.shown_by.iter().find_map(|pattern| captures(pattern, &line))?;
            let filled = |template| subject.fill(template, &found);
            Some(Cause { cause: filled(known.cause), next: filled(known.next), shown_by: text.to_owned() })
        })
    })
}

impl Subject {
    fn fill(&self, template: &str, captured: &[&str]) -> String {
        let mut text = template.to_owned();
        for (name, value) in [
            ("{container}", &self.container),
            ("{pod}", &self.pod),
            ("{namespace}", &self.namespace),
            ("{workload}", &self.workload),
            ("{node}", &self.node),
            ("{edit}", &self.edit),
            ("{renew_secret}", &self.renew_secret),
            ("{kubectl}", &self.kubectl),
        ] {
            text = text.replace(name, value);
        }
        for (index, value) in captured.iter().enumerate() {
            text = text.replace(&format!("{{{}}}", index + 1), super::shortened(value, 160).trim());
        }
        text
    }
}

/// What stands for each `{}` of `pattern` in `line`; the last one reaches to the line's end, if nothing follows it.
fn captures<'a>(pattern: &str, line: &'a str) -> Option<Vec<&'a str>> {
    let mut literals = pattern.split("{}");
    let first = literals.next()?;
    let mut rest = line.split_once(first)?.1;
    let mut found = Vec::new();
    for literal in literals {
        let (captured, after) = if literal.is_empty() { (rest, "") } else { rest.split_once(literal)? };
        // The quote that encloses the whole text is not part of it.
        let encloses = captured.matches('"').count() % 2 == 1;
        found.push(if encloses { captured.strip_suffix('"').unwrap_or(captured) } else { captured });
        rest = after;
    }
    Some(found)
}

/// What a DaemonSet that wants no pod is said to be: no event tells it.
pub const WANTS_NO_POD: &str = "wants no pod, for no node fits: ";

/// What a workload is said to be that no controller has seen, and a pod that no scheduler has.
pub const NOT_TAKEN_UP: &str = "has not been seen by a controller manager yet";
/// See [`NOT_TAKEN_UP`].
pub const NOT_LOOKED_AT: &str = "Pending: no scheduler has looked at it yet";

/// The more telling first: who is not let in by a registry is told that it does not find it, too.
const TABLE: &[Known] = &[
    // --- what the program says of its own flags and files -----------------------------------------------------
    Known {
        shown_by: &["unknown flag: {}", "flag provided but not defined: {}", "unknown shorthand flag: {}"],
        cause: "{container} does not know the flag {1}",
        next: "take the flag out or correct it: {edit}",
    },
    Known {
        shown_by: &["invalid argument \"{}\" for \"{}\" flag: {}"],
        cause: "\"{1}\" is not a value that {container} takes for the flag {2}: {3}",
        next: "correct the value: {edit}",
    },
    Known {
        shown_by: &["unrecognized feature gate: {}"],
        cause: "this version of {container} has no feature gate {1}",
        next: "take it out of --feature-gates: {edit}",
    },
    Known {
        shown_by: &["\"command failed\" err=\"[{}]\"", "\"command failed\" err=\"enable-admission-plugins {}\""],
        cause: "{container} does not accept its flags: {1}",
        next: "correct them: {edit}",
    },
    // --- images --------------------------------------------------------------------------------------------------
    Known {
        shown_by: &["InvalidImageName", "couldn't parse image name {}", "invalid reference format"],
        cause: "the image's name is not a valid reference",
        next: "correct the image: {edit}",
    },
    Known {
        shown_by: &["is not present with pull policy of Never", "ErrImageNeverPull"],
        cause: "the image is not on the node, and imagePullPolicy: Never forbids to pull it",
        next: "load the image on {node} (`ctr -n k8s.io images import FILE`), or change the policy: {edit}",
    },
    Known {
        shown_by: &[
            "failed to resolve reference \"{}\": pull access denied",
            "failed to resolve reference \"{}\": failed to authorize",
            "failed to resolve reference \"{}\": unexpected status from HEAD request to {}: 401 Unauthorized",
            "failed to resolve reference \"{}\": unexpected status from HEAD request to {}: 403 Forbidden",
            "failed to resolve reference \"{}\": unexpected status code {}: 401 Unauthorized",
            "failed to resolve reference \"{}\": unexpected status code {}: 403 Forbidden",
        ],
        cause: "the registry does not let this node pull {1}: no credentials, wrong ones, or no such repository",
        next: "give the container runtime on {node} credentials for the registry, or name another image: {edit}",
    },
    Known {
        shown_by: &["failed to resolve reference \"{}\": {}: not found", "manifest for {} not found"],
        cause: "the registry has no image {1}",
        next: "correct the image: {edit}",
    },
    Known {
        shown_by: &[
            "failed to resolve reference \"{}\": failed to do request: {} tls: failed to verify certificate: {}",
        ],
        cause: "{node} does not trust the certificate of the registry of {1}: {3}",
        next: "give the container runtime on {node} the registry's CA (containerd: /etc/containerd/certs.d), or name another image: {edit}",
    },
    Known {
        shown_by: &["failed to resolve reference \"{}\": failed to do request: {} \"{}\": {}"],
        cause: "{node} cannot reach the registry of {1}: {4}",
        next: "check the network, the name server or the proxy of {node}, or name an image that it can reach or has: {edit}",
    },
    // Of a static pod, by what the runtime has: the kubelet's words on why it could not pull it tell more.
    Known {
        shown_by: &["the image {} of the static pod {} is not on this machine; {}"],
        cause: "the image {1} of the static pod {2} is not on this machine, and the kubelet cannot pull it, or has not yet",
        next: "{3}",
    },
    // --- etcd ----------------------------------------------------------------------------------------------------
    Known {
        shown_by: &[":2379\"{}certificate signed by unknown authority"],
        cause: "etcd's certificate is not signed by the CA that {container} trusts: etcd-ca.crt of its Secret is another CA's",
        next: "{renew_secret}",
    },
    Known {
        shown_by: &[
            ":2379\"{}remote error: tls: bad certificate",
            ":2379\"{}remote error: tls: unknown certificate authority",
            ":2379\"{}remote error: tls: certificate required",
        ],
        cause: "etcd refuses the client certificate of {container}: apiserver-etcd-client.crt of its Secret is not of etcd's CA",
        next: "{renew_secret}",
    },
    Known {
        shown_by: &[":2379: connect: connection refused", ":2379: i/o timeout", ":2379: connect: no route to host"],
        cause: "etcd does not answer",
        next: "look at etcd: `ls -t /var/log/pods/kube-system_etcd-*/etcd/*.log | head -n 1 | xargs tail` on {node}, or `journalctl -u kubelet` if there is none",
    },
    Known {
        shown_by: &["etcd has raised the alarm NOSPACE: {}; {}"],
        cause: "the quota of etcd's database is reached: {1}",
        next: "{2}",
    },
    Known {
        shown_by: &["etcdserver: mvcc: database space exceeded"],
        cause: "the quota of etcd's database is reached, and it takes no more writes",
        next: "`hoist status` on {node} shows how full it is, and what to type (docs/recover.md)",
    },
    Known {
        shown_by: &["etcd has raised the alarm {}: {}; {}"],
        cause: "etcd has raised the alarm {1}: {2}",
        next: "{3}",
    },
    Known {
        shown_by: &["etcdserver: corrupt cluster"],
        cause: "etcd has found that its data is corrupt, and takes no more requests",
        next: "bring its data back from a backup: `hoist recover --backup FILE`",
    },
    Known {
        shown_by: &["etcdserver: request is too large", "trying to send message larger than max"],
        cause: "an object is larger than etcd accepts (1.5 MiB)",
        next: "`hoist validate` names what is too large in the asset directory: split it",
    },
    Known {
        shown_by: &["etcd's data is not in {}: {}"],
        cause: "etcd's data is not in {1}, and its pod waits for it",
        next: "{2}",
    },
    // --- certificates and the clock --------------------------------------------------------------------------------
    Known {
        shown_by: &["x509: certificate has expired or is not yet valid: current time {} is before {}"],
        cause: "a certificate is valid only from {2} on, and the clock says {1}",
        next: "set the clock of {node} right: `timedatectl` shows it",
    },
    Known {
        shown_by: &["x509: certificate has expired or is not yet valid: current time {} is after {}"],
        cause: "a certificate was valid until {2}, and the clock says {1}",
        next: "if `date -u` on {node} is right, `hoist render` issues expired certificates anew: run it, and then {renew_secret}",
    },
    Known {
        shown_by: &["x509: certificate is valid for {}, not {}"],
        cause: "a server's certificate is for {1}, and its client called it {2}",
        next: "add the name to apiServer.certSANs in cluster.yaml and render again, or correct the address: {edit}",
    },
    Known {
        shown_by: &["x509: certificate signed by unknown authority"],
        cause: "a certificate is not signed by the CA that {container} trusts",
        next: "compare the CAs in its Secret with those in tls/ of the asset directory; {renew_secret}",
    },
    Known {
        shown_by: &["tls: private key does not match public key"],
        cause: "a certificate and its key do not belong together",
        next: "{renew_secret}",
    },
    // --- ports ----------------------------------------------------------------------------------------------------
    Known {
        shown_by: &["listen tcp {}: bind: address already in use"],
        cause: "another process listens at {1} already",
        next: "`ss -ltnp` on {node} shows which: stop it, or change the port: {edit}",
    },
    Known {
        shown_by: &["didn't have free ports for the requested pod ports"],
        cause: "another pod of every node has the host port that this one asks for",
        next: "take `hostPort` and `ports` out: {edit}",
    },
    // --- what keeps a pod from being made --------------------------------------------------------------------------
    Known {
        shown_by: &["exceeded quota: {}, requested: {}, used: {}, limited: {}"],
        cause: "the ResourceQuota {1} of {namespace} is used up: {2} requested, {4} allowed",
        next: "`{kubectl} -n {namespace} edit resourcequota {1}`",
    },
    Known {
        shown_by: &["violates PodSecurity \"{}\": {}"],
        cause: "the namespace {namespace} enforces the Pod Security Standard {1}, and the pod violates it: {2}",
        next: "`{kubectl} label namespace {namespace} --overwrite pod-security.kubernetes.io/enforce=privileged`",
    },
    Known {
        shown_by: &["admission webhook \"{}\" denied the request: {}"],
        cause: "the admission webhook {1} refuses it: {2}",
        next: "do as it asks: {edit}; or find its configuration and exempt {namespace}: `{kubectl} get validatingwebhookconfigurations,mutatingwebhookconfigurations -o wide`",
    },
    Known {
        shown_by: &["failed calling webhook \"{}\": {}"],
        cause: "the admission webhook {1} cannot be reached, and nothing is made without it: {2}",
        next: "find the configuration that has it, `{kubectl} get validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml | grep -B 60 {1}`, and delete that, exempt {namespace} with a namespaceSelector, or set failurePolicy: Ignore",
    },
    Known {
        shown_by: &["error looking up service account {}: "],
        cause: "the ServiceAccount {1} is missing",
        next: "add a manifest of it to manifests/ of the asset directory, or `{kubectl} -n {namespace} create serviceaccount NAME`",
    },
    Known {
        shown_by: &["no PriorityClass with name {} was found"],
        cause: "the PriorityClass {1} is missing",
        next: "make it, or name another: {edit}",
    },
    Known {
        shown_by: &["there is no DaemonSet, Deployment, StatefulSet or Pod {}"],
        cause: "{1} is not in the cluster: it was deleted, or no manifest makes it",
        next: "`{kubectl} -n {namespace} get events` may tell who deleted it; what is in manifests/ of the asset directory is made anew",
    },
    Known {
        shown_by: &["has not been seen by a controller manager yet"],
        cause: "no controller manager is at work, so no pod of {workload} is made",
        next: "`{kubectl} -n kube-system get leases,pods` shows who leads, and whether kube-controller-manager runs",
    },
    Known {
        shown_by: &["Pending: no scheduler has looked at it yet"],
        cause: "no scheduler is at work, so {pod} gets no node",
        next: "`{kubectl} -n kube-system get leases,pods` shows who leads, and whether kube-scheduler runs",
    },
    // --- where it could run ------------------------------------------------------------------------------------------
    Known {
        shown_by: &["wants no pod, for no node fits: {}"],
        cause: "no node fits {workload}, so it gets no pod: {1}",
        next: "{edit}; or, if it is the node that lacks something, `{kubectl} edit node {node}`",
    },
    Known {
        shown_by: &["Insufficient {}. ", "Insufficient {}"],
        cause: "no node has enough {1} left",
        next: "`{kubectl} describe nodes` shows which pods use it; ask for less: {edit}",
    },
    Known {
        shown_by: &["Too many pods"],
        cause: "the nodes are full: each runs as many pods as its kubelet may",
        next: "raise kubelet.config.maxPods in cluster.yaml and render again, or delete pods",
    },
    Known {
        shown_by: &[
            "didn't match Pod's node affinity/selector",
            "node(s) didn't match PersistentVolume's node affinity",
        ],
        cause: "no node has the labels that its nodeSelector or affinity asks for",
        next: "{edit}; or label a node: `{kubectl} get nodes --show-labels`, `{kubectl} label node {node} KEY=VALUE`",
    },
    Known {
        shown_by: &["untolerated taint {}", "untolerated taint(s)"],
        cause: "every node has a taint that it does not tolerate",
        next: "`{kubectl} get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints` shows them; add a toleration: {edit}. A node that is not ready has a taint, too",
    },
    Known {
        shown_by: &["no nodes available to schedule pods"],
        cause: "no node is registered",
        next: "`journalctl -u kubelet -n 50` on {node} says why its kubelet does not register",
    },
    // --- what it mounts -----------------------------------------------------------------------------------------------
    Known {
        shown_by: &[
            "secret \"{}\" not found",
            "couldn't find key {} in Secret {}",
            "references non-existent secret key: {}",
        ],
        cause: "the Secret, or the key in it, that it names is missing: {1}",
        next: "`{kubectl} -n {namespace} get secrets` shows what there is; add it to manifests/ of the asset directory, or correct the name: {edit}",
    },
    Known {
        shown_by: &[
            "configmap \"{}\" not found",
            "couldn't find key {} in ConfigMap {}",
            "references non-existent config key: {}",
        ],
        cause: "the ConfigMap, or the key in it, that it names is missing: {1}",
        next: "`{kubectl} -n {namespace} get configmaps` shows what there is; add it to manifests/ of the asset directory, or correct the name: {edit}",
    },
    Known {
        shown_by: &["hostPath type check failed: {} is not a {}"],
        cause: "{node} has no {2} {1}, which it mounts from the host",
        next: "make it on {node}, or correct the path: {edit}",
    },
    // --- the node and its runtime --------------------------------------------------------------------------------------
    Known {
        shown_by: &[
            "cni plugin not initialized",
            "cni config uninitialized",
            "No networks found in /etc/cni/net.d",
            "NetworkPluginNotReady",
        ],
        cause: "{node} has no CNI configuration, so only pods with hostNetwork: true run there",
        next: "install a network plugin (its configuration belongs into /etc/cni/net.d of {node}), or set hostNetwork: true: {edit}",
    },
    Known {
        shown_by: &["Kubelet stopped posting node status", "Node is not ready", "node is not ready"],
        cause: "{node} is not ready: its kubelet or its container runtime does not run as it should",
        next: "`journalctl -u kubelet -n 50` on {node}; `{kubectl} describe node {node}`",
    },
    Known {
        shown_by: &["can't get final child's PID from pipe"],
        cause: "runc could not start the container's first process: in a nested or unprivileged host most often because oom_score_adj may not be lowered",
        next: "set `restrict_oom_score_adj = true` under [plugins.\"io.containerd.grpc.v1.cri\"] in /etc/containerd/config.toml on {node}, then `systemctl restart containerd`",
    },
    Known {
        shown_by: &[
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{}\"",
            "is different from docker cgroup driver",
            "cgroup driver: \"{}\" is different from",
        ],
        cause: "the kubelet and the container runtime on {node} use different cgroup drivers",
        next: "make them agree: kubelet.config.cgroupDriver in cluster.yaml (then `hoist render`), and SystemdCgroup in /etc/containerd/config.toml on {node}",
    },
    Known {
        shown_by: &["OOMKilled"],
        cause: "{container} was killed because it used more memory than it may",
        next: "raise its memory limit, or give {node} more memory: {edit}",
    },
    Known {
        shown_by: &[
            "no space left on device",
            "The node was low on resource: ephemeral-storage",
            "node has disk pressure",
        ],
        cause: "a disk of {node} is full",
        next: "`df -h /var /var/lib/etcd /var/lib/containerd` on {node} shows which; make room there",
    },
    Known {
        shown_by: &["ead-only file system"],
        cause: "{container} writes to a file system that is read-only",
        next: "mount a volume where it writes: {edit}; if it is the host's, `dmesg | tail` on {node} may say why",
    },
    Known {
        shown_by: &[
            "exec: \"{}\": executable file not found in $PATH",
            "exec: \"{}\": stat {}: no such file or directory",
        ],
        cause: "the image has no program {1}",
        next: "correct the command or the image: {edit}",
    },
    Known {
        shown_by: &["exec: \"{}\": permission denied"],
        cause: "{1} of the image may not be run",
        next: "correct the command or the image: {edit}",
    },
    Known {
        shown_by: &["container has runAsNonRoot and image will run as root"],
        cause: "the pod says runAsNonRoot, and the image runs as root",
        next: "set runAsUser, or take runAsNonRoot out: {edit}",
    },
    Known {
        shown_by: &["open {}: permission denied", "mkdir {}: permission denied"],
        cause: "{container} may not use {1}",
        next: "correct the owner and the mode of the file, or runAsUser: {edit}",
    },
    Known {
        shown_by: &[
            "open {}: no such file or directory",
            "\"command failed\" err=\"stat {}: no such file or directory",
        ],
        cause: "{container} has no file {1}",
        next: "correct the flag that names it or the volume that should hold it: {edit}",
    },
    Known {
        shown_by: &["is forbidden: User \"{}\" cannot {}"],
        cause: "the RBAC rules do not allow {1} to {2}",
        next: "`{kubectl} get clusterrolebindings -o wide | grep {1}`; `hoist start` restores what hoist rendered once it is gone",
    },
    // --- what is left when nothing more telling was found ----------------------------------------------------------------
    Known {
        shown_by: &["error creating storage factory: context deadline exceeded"],
        cause: "etcd does not answer {container}",
        next: "look at etcd: `ls -t /var/log/pods/kube-system_etcd-*/etcd/*.log | head -n 1 | xargs tail` on {node}; and at --etcd-servers: {edit}",
    },
    Known {
        shown_by: &[
            "failed to create containerd task: {}",
            "Failed to create pod sandbox: {}",
            "failed to create pod sandbox: {}",
        ],
        cause: "the container runtime on {node} could not start it: {1}",
        next: "`journalctl -u containerd -n 50` on {node}",
    },
    Known {
        shown_by: &["permission denied"],
        cause: "{container} may not do what it has to",
        next: "correct runAsUser, the capabilities or the owner of the files: {edit}",
    },
    Known {
        shown_by: &["failed startup probe, will be restarted", "failed liveness probe, will be restarted"],
        cause: "{container} runs, but does not answer its probe in time and is restarted for that",
        next: "its log says what it waits for: `{kubectl} -n {namespace} logs {pod} --previous`",
    },
];

#[cfg(test)]
mod tests;
