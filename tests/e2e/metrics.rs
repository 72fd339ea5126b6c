//! The metrics of the control plane, as the example of docs/examples/metrics has them read: each by itself, and all of them
//! by a real Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::kubectl::Kubectl;
use crate::support::node::{Node, disk};
use crate::support::{eventually, unpacked};

const LIMIT: Duration = Duration::from_secs(120);
/// Where the pod finds the program on its node.
const PROGRAM: &str = "/usr/local/bin/prometheus";

/// Each target of the example answers a client with the token of the example's service account, and no other.
pub fn are_read(node: &Node, kubectl: &Kubectl, example: &Path) {
    let text = fs::read_to_string(example.join("scrape-config.yaml")).unwrap();
    let map: Value = serde_yaml::from_str(&text).unwrap();
    let config: Value = serde_yaml::from_str(map["data"]["prometheus.yml"].as_str().unwrap()).unwrap();
    let token = kubectl.run(&["create", "token", "prometheus", "-n", "monitoring"]).ok();
    let other = kubectl.run(&["create", "token", "default", "-n", "monitoring"]).ok();
    let mut asked = Vec::new();
    for job in config["scrape_configs"].as_array().unwrap() {
        let name = job["job_name"].as_str().unwrap();
        let path = job["metrics_path"].as_str().unwrap_or("/metrics");
        let scheme = job["scheme"].as_str().unwrap_or("http");
        let target = match job["static_configs"][0]["targets"][0].as_str() {
            Some(target) => target.to_owned(),
            None => format!("{}:10250", node.address),
        };
        let ask = |token: &str| {
            let curl = format!(
                "curl -sk -m 20 -w '\\n%{{http_code}}' -H 'Authorization: Bearer {}' {scheme}://{target}{path}",
                token.trim()
            );
            let said = node.sh(&curl);
            let (body, code) = said.rsplit_once('\n').unwrap();
            (code.to_owned(), body.lines().filter(|line| line.starts_with("# TYPE ")).count())
        };
        let (code, families) = ask(&token);
        eprintln!("{name}: {code}, {families} metrics");
        assert!(code == "200" && families > 0, "{name}: {code}, {families} metrics");
        if job["authorization"].is_object() {
            assert_eq!(ask(&other).0, "403", "{name} lets anybody read");
        }
        asked.push(name.to_owned());
    }
    assert_eq!(asked.len(), 7);
}

/// Prometheus in a pod as the page describes it: on the controller, in its network, with the example's account and its
/// ConfigMap; only faster, and the kubelet is named: Debian's is built without Kubernetes' discovery. The program, and the
/// libraries that it was linked with, are the node's.
pub fn a_prometheus_reads_them(node: &Node, kubectl: &Kubectl, example: &Path) {
    let program = unpacked("prometheus").join("usr/bin/prometheus");
    fs::copy(program, disk(node).join(PROGRAM.trim_start_matches('/'))).unwrap();
    let map = fs::read_to_string(example.join("scrape-config.yaml")).unwrap();
    let map = map.replace("scrape_interval: 30s", "scrape_interval: 3s\n      scrape_timeout: 3s");
    let kubelet = format!("static_configs: [{{targets: [\"{}:10250\"]}}]", node.address);
    kubectl.apply(&map.replace("kubernetes_sd_configs: [{role: node}]", &kubelet));
    kubectl.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: prometheus, namespace: monitoring}}
spec:
  serviceAccountName: prometheus
  hostNetwork: true
  nodeName: {}
  tolerations: [{{operator: Exists}}]
  containers:
  - name: prometheus
    image: docker.io/library/busybox:1.36
    command: [{PROGRAM}, --config.file=/etc/prometheus/prometheus.yml, --storage.tsdb.path=/data, --web.listen-address=127.0.0.1:9090]
    volumeMounts:
    - {{name: config, mountPath: /etc/prometheus}}
    - {{name: data, mountPath: /data}}
    - {{name: usr, mountPath: /usr, readOnly: true}}
    - {{name: lib, mountPath: /lib, readOnly: true}}
    - {{name: lib64, mountPath: /lib64, readOnly: true}}
  volumes:
  - {{name: config, configMap: {{name: prometheus}}}}
  - {{name: data, emptyDir: {{}}}}
  - {{name: usr, hostPath: {{path: /usr}}}}
  - {{name: lib, hostPath: {{path: /usr/lib}}}}
  - {{name: lib64, hostPath: {{path: /usr/lib64}}}}
",
        node.name
    ));
    let up = eventually("Prometheus has read all targets", LIMIT, || {
        let answer = node.exec(["curl", "-sf", "-m", "5", "http://127.0.0.1:9090/api/v1/query?query=up"]);
        let answer: Value = serde_json::from_str(&answer.stdout).ok()?;
        let series = answer["data"]["result"].as_array()?;
        let up = series.iter().map(|one| Some((one["metric"]["job"].as_str()?, one["value"][1].as_str()?)));
        let up = up.map(|pair| pair.map(|(job, value)| (job.to_owned(), value.to_owned())));
        let up: BTreeMap<_, _> = up.collect::<Option<_>>()?;
        (up.len() == 7 && up.values().all(|value| value == "1")).then_some(up)
    });
    eprintln!("Prometheus reads {:?}", up.keys());
}
