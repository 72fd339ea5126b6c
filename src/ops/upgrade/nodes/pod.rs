//! The pod that exchanges the kubelet beside it, or the hoist.
//!
//! Its container has the machine's processes before it and every right, and enters the mounts of the machine's first process: from
//! then on it sees what a command on the node sees. A kubelet that is restarted leaves it alone, as it does every pod.

use serde_json::{Value, json};

use super::Options;
use crate::desired::config::Cluster;
use crate::node::host::BINARY;

/// Where the program is put that an image has, on the node.
const STAGED: &str = "/var/lib/hoist/kubelet";
/// As most machines have it; a container of an empty image has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is exchanged on each node.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The kubelet.
    Kubelet(Source<'a>),
    /// hoist, by the one of this image.
    Hoist(&'a str),
}

impl What<'_> {
    /// The label of its pods.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Kubelet(_) => "hoist-upgrade-node",
            Self::Hoist(_) => "hoist-upgrade-hoist",
        }
    }

    /// The name of its pod of a node.
    pub(super) fn pod(self, node: &str) -> String {
        format!("{}-{node}", self.label())
    }
}

/// Where a new kubelet comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file that is on each node.
    File(&'a str),
    /// A file of an image.
    Image {
        /// The image.
        image: &'a str,
        /// The file in it.
        file: &'a str,
    },
}

/// The pod.
pub(super) fn pod(cluster: &Cluster, node: &str, options: &Options<'_>) -> Value {
    match options.what {
        What::Kubelet(source) => of_kubelet(cluster, node, source, options),
        What::Hoist(image) => {
            let (image_flag, timeout) = (format!("--image={image}"), timeout(options));
            let command = ["/hoist", "upgrade", "hoist", "--in-host", &image_flag, &timeout, &folder(options)];
            whole(options, node, container("exchange", image, &command, &[]), &[], &[])
        }
    }
}

fn timeout(options: &Options<'_>) -> String {
    format!("--timeout={}s", options.timeout.as_secs())
}

fn folder(options: &Options<'_>) -> String {
    format!("--pod-manifest-path={}", options.manifests)
}

fn of_kubelet(cluster: &Cluster, node: &str, source: Source<'_>, options: &Options<'_>) -> Value {
    let images = &cluster.images;
    let hoist = images.hoist.as_ref().unwrap_or(&images.pause);
    let (mut volumes, mut mounts, mut init) = (Vec::new(), Vec::new(), Vec::new());
    let mut program = "/hoist";
    if images.hoist.is_none() {
        volumes.push(json!({"name": "hoist", "hostPath": {"path": BINARY, "type": "File"}}));
        mounts.push(json!({"name": "hoist", "mountPath": "/hoist", "readOnly": true}));
    }
    let kubelet = match source {
        Source::File(file) => file.to_owned(),
        Source::Image { image, file } => {
            volumes.push(json!({"name": "staged", "hostPath": {"path": STAGED, "type": "DirectoryOrCreate"}}));
            let staged = json!({"name": "staged", "mountPath": "/staged"});
            let mut mounts: Vec<_> = mounts.iter().cloned().chain([staged]).collect();
            if images.hoist.is_some() {
                // hoist's image has hoist, and the other the kubelet: what copies is copied first.
                volumes.push(json!({"name": "shared", "emptyDir": {}}));
                mounts.push(json!({"name": "shared", "mountPath": "/shared"}));
                init.push(container(
                    "hoist",
                    hoist,
                    &["/hoist", "upgrade", "node", "--kubelet=/hoist", "--take=/shared/hoist"],
                    &mounts,
                ));
                program = "/shared/hoist";
            }
            let take = [program, "upgrade", "node", &format!("--kubelet={file}"), "--take=/staged/kubelet"];
            init.push(container("kubelet", image, &take, &mounts));
            format!("{STAGED}/kubelet")
        }
    };
    let (timeout, folder, kubelet) = (timeout(options), folder(options), format!("--kubelet={kubelet}"));
    let mut command = vec!["/hoist", "upgrade", "node", "--in-host", &kubelet, &timeout, &folder];
    if matches!(source, Source::Image { .. }) {
        command.push("--consume");
    }
    whole(options, node, container("exchange", hoist, &command, &mounts), &init, &volumes)
}

/// The pod whose container `exchange` is the machine's, as far as it wants to be.
fn whole(options: &Options<'_>, node: &str, mut exchange: Value, init: &[Value], volumes: &[Value]) -> Value {
    exchange["securityContext"] = json!({"privileged": true, "runAsUser": 0});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": options.what.pod(node),
            "namespace": "kube-system",
            "labels": {"app.kubernetes.io/name": options.what.label(), "app.kubernetes.io/managed-by": "hoist"},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [exchange],
            "hostNetwork": true,
            "hostPID": true,
            "initContainers": init,
            "nodeName": node,
            "priorityClassName": "system-node-critical",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"operator": "Exists"}],
            "volumes": volumes,
        },
    })
}

fn container(name: &str, image: &str, command: &[&str], mounts: &[Value]) -> Value {
    json!({
        "name": name,
        "image": image,
        "command": command,
        "env": [{"name": "PATH", "value": PATH}],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 0},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn made(hoist: &str, source: Source<'_>) -> Value {
        const CLUSTER: &str =
            "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: [{name: c1, address: 192.0.2.10}]\n";
        let cluster = crate::desired::config::parse("f", &format!("{CLUSTER}{hoist}"), Path::new("/")).unwrap();
        let options =
            Options { what: What::Kubelet(source), most: 1, timeout: Duration::from_secs(60), manifests: "/m" };
        let pod = pod(&cluster, "w1", &options);
        serde_json::from_value::<Pod>(pod.clone()).unwrap();
        pod
    }

    #[test]
    fn what_is_needed_comes_from_the_node_or_from_images() {
        let image = Source::Image { image: "r/kubelet:v1", file: "/usr/bin/kubelet" };
        let own = made("", Source::File("/opt/kubelet"));
        let names = |pod: &Value, pointer: &str| {
            let list = pod.pointer(pointer).and_then(Value::as_array).unwrap();
            list.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(&own, "/spec/volumes"), ["hoist"]);
        assert_eq!(names(&own, "/spec/initContainers"), Vec::<String>::new());
        let taken = made("", image);
        assert_eq!(names(&taken, "/spec/volumes"), ["hoist", "staged"]);
        assert_eq!(names(&taken, "/spec/initContainers"), ["kubelet"]);
        assert_eq!(taken["spec"]["containers"][0]["command"][4], "--kubelet=/var/lib/hoist/kubelet/kubelet");
        let both = made("images: {hoist: 'r/hoist:v1'}\n", image);
        assert_eq!(names(&both, "/spec/initContainers"), ["hoist", "kubelet"]);
        assert_eq!(both["spec"]["initContainers"][1]["command"][0], "/shared/hoist");
        assert_eq!(both["spec"]["containers"][0]["image"], "r/hoist:v1");
        assert_eq!(both["metadata"]["name"], "hoist-upgrade-node-w1");
    }

    #[test]
    fn the_new_hoist_comes_in_the_image_that_runs_it() {
        let cluster = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers: [{name: c1, address: 192.0.2.10}]\n";
        let cluster = crate::desired::config::parse("f", cluster, Path::new("/")).unwrap();
        let options =
            Options { what: What::Hoist("r/hoist:v2"), most: 1, timeout: Duration::from_secs(60), manifests: "/m" };
        let pod = pod(&cluster, "w1", &options);
        serde_json::from_value::<Pod>(pod.clone()).unwrap();
        let exchange = &pod["spec"]["containers"][0];
        assert_eq!(
            (&exchange["image"], &pod["metadata"]["name"]),
            (&json!("r/hoist:v2"), &json!("hoist-upgrade-hoist-w1"))
        );
        assert_eq!(
            exchange["command"],
            json!([
                "/hoist",
                "upgrade",
                "hoist",
                "--in-host",
                "--image=r/hoist:v2",
                "--timeout=60s",
                "--pod-manifest-path=/m"
            ])
        );
        assert_eq!(exchange["securityContext"]["privileged"], true);
    }
}
