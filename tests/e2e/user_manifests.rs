//! What users put into manifests/ between render and start.

use crate::serving::assert_serves_itself;
use crate::support::cluster::Cluster;
use crate::support::node::Node;

/// Files are read by name: each of these comes before the one that it needs.
const WRONG_WAY_ROUND: [(&str, &str); 4] = [
    (
        "00-gadget.yaml",
        "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: first, namespace: user}\nspec: {size: 3}\n",
    ),
    (
        "10-config.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: user, namespace: user}\ndata: {key: value}\n",
    ),
    (
        "20-crd.yaml",
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  names: {kind: Gadget, plural: gadgets}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {size: {type: integer}}}}
",
    ),
    ("90-namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: user}\n"),
];

/// It parses, and only an API server can know that it does not do.
const REFUSED: (&str, &str) =
    ("50-refused.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Not_A_Name, namespace: user}\n");

#[test]
fn user_manifests() {
    let node = Node::up("manifests");
    let cluster = Cluster::render(&node);
    for (name, text) in WRONG_WAY_ROUND.into_iter().chain([REFUSED]) {
        cluster.add_manifest(name, text);
    }
    let start = cluster.started(&node, &[]).expect(8);
    eprintln!("{start}");
    start.says(&["manifests/50-refused.yaml", "Not_A_Name"]);
    for (name, _) in WRONG_WAY_ROUND {
        assert!(!start.stderr.contains(name), "{name} is said to be refused: {start}");
    }

    let kubectl = cluster.kubectl();
    assert_eq!(kubectl.get(&["gadgets", "-n", "user", "first"])["spec"]["size"], 3);
    assert_eq!(kubectl.get(&["configmap", "-n", "user", "user"])["data"]["key"], "value");
    // One bad manifest does not keep the cluster from serving itself.
    assert_serves_itself(&node, &cluster);
}
