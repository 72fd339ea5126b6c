use std::collections::BTreeSet;

use serde_json::json;
use time::OffsetDateTime;

use super::super::delete::OwnImage;
use super::super::keys;
use super::super::tenant::tests::{addresses, object, of_three};
use super::*;

fn of(more: &Value) -> (Tenant, Desired, Tls) {
    let tenant = Tenant::read(&object(more)).unwrap();
    let cluster = tenant.cluster(&addresses()).unwrap();
    let tls = keys::issued(&cluster, &Tls::new(), OffsetDateTime::now_utc()).unwrap();
    let desired = desired(&tenant, &cluster, &addresses(), &tls).unwrap();
    (tenant, desired, tls)
}

fn find<'a>(desired: &'a Desired, kind: &str, name: &str) -> &'a Value {
    let is = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    desired.objects.iter().find(is).unwrap_or_else(|| panic!("{kind} {name}"))
}

fn command(desired: &Desired, kind: &str, name: &str) -> Vec<String> {
    let command = &find(desired, kind, name)["spec"]["template"]["spec"]["containers"][0]["command"];
    serde_json::from_value(command.clone()).unwrap()
}

fn has(command: &[String], flag: &str) {
    assert!(command.iter().any(|one| one == flag), "{flag}: {command:#?}");
}

#[test]
fn a_tenants_parts_find_each_other_at_the_addresses_of_their_services() {
    let (_, desired, _) = of(&json!({}));
    let etcd = command(&desired, "StatefulSet", "a-etcd");
    has(&etcd, "--initial-cluster=a-etcd-0=https://10.96.5.6:2380");
    has(&etcd, "--initial-advertise-peer-urls=https://10.96.5.6:2380");
    has(&etcd, "--name=a-etcd-0");
    has(&etcd, "--advertise-client-urls=https://10.96.5.6:2379");
    let server = command(&desired, "Deployment", "a-apiserver");
    has(&server, "--etcd-servers=https://10.96.5.6:2379");
    has(&server, "--service-account-jwks-uri=https://192.0.2.7:30443/openid/v1/jwks");
    has(&server, "--service-cluster-ip-range=10.96.0.0/12");
    let pod = &find(&desired, "Deployment", "a-apiserver")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["env"], json!([{"name": "HOST_IP", "value": "192.0.2.7"}]));
    // The kubelet asks these at the pod's own address.
    has(&command(&desired, "Deployment", "a-scheduler"), "--bind-address=0.0.0.0");
    has(&command(&desired, "Deployment", "a-controller-manager"), "--bind-address=0.0.0.0");
    let secret = keys::from_data(&find(&desired, "Secret", "a-scheduler")["data"]);
    let kubeconfig = String::from_utf8(secret["kubeconfig"].clone()).unwrap();
    assert!(kubeconfig.contains("server: \"https://10.96.5.5:6443\""), "{kubeconfig}");
    assert!(desired.kubeconfig.contains("server: \"https://192.0.2.7:30443\""));
}

#[test]
fn every_object_is_the_tenants_own_and_the_same_each_time() {
    let tenant = Tenant::read(&object(&json!({}))).unwrap();
    let cluster = tenant.cluster(&addresses()).unwrap();
    let tls = keys::issued(&cluster, &Tls::new(), OffsetDateTime::now_utc()).unwrap();
    let desired = || super::desired(&tenant, &cluster, &addresses(), &tls).unwrap();
    let (first, second) = (desired(), desired());
    assert_eq!(first.objects, second.objects, "a second turn writes nothing");
    assert_eq!(first.inside, second.inside);
    let mut all = services(&tenant).unwrap();
    all.extend(first.objects);
    all.push(key_secret(&tenant, &tls));
    for object in &all {
        let metadata = &object["metadata"];
        assert_eq!(metadata["namespace"], "n");
        assert_eq!(metadata["labels"][TENANT_LABEL], "a");
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u", "{object}");
    }
    let names: BTreeSet<String> =
        all.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect();
    assert_eq!(names.len(), all.len(), "each once: {names:?}");
}

#[test]
fn pods_are_where_they_may_be_and_are_replaced_when_what_they_read_changes() {
    let more = json!({"nodeSelector": {"pool": "x"}, "tolerations": [{"operator": "Exists"}],
        "apiServer": {"resources": {"limits": {"memory": "1Gi"}}}});
    let (tenant, desired, mut tls) = of(&more);
    let pod = |name: &str, kind: &str| find(&desired, kind, name)["spec"]["template"]["spec"].clone();
    let etcd = pod("a-etcd", "StatefulSet");
    assert_eq!(etcd["nodeSelector"], json!({"pool": "x", "kubernetes.io/hostname": "w1"}));
    assert_eq!(etcd["volumes"][0]["hostPath"], json!({"path": "/srv/tenants", "type": "Directory"}));
    assert_eq!(etcd["containers"][0]["volumeMounts"][0]["subPath"], tenant.folder(&keys::ca_hash(&tls).unwrap()));
    let server = pod("a-apiserver", "Deployment");
    assert_eq!(server["nodeSelector"], json!({"pool": "x"}));
    assert_eq!(server["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(server["containers"][0]["resources"], json!({"limits": {"memory": "1Gi"}}));

    let cluster = tenant.cluster(&addresses()).unwrap();
    let crt = tls["apiserver.crt"].clone();
    tls.insert("apiserver.crt".into(), [crt, b"\n".to_vec()].concat());
    let renewed = super::desired(&tenant, &cluster, &addresses(), &tls).unwrap();
    let template = |desired: &Desired, kind: &str, name: &str| find(desired, kind, name)["spec"]["template"].clone();
    for (kind, name, changes) in
        [("Deployment", "a-apiserver", true), ("Deployment", "a-scheduler", false), ("StatefulSet", "a-etcd", false)]
    {
        assert_eq!(template(&desired, kind, name) != template(&renewed, kind, name), changes, "{name}");
    }
}

#[test]
fn snapshots_are_taken_and_restored_where_they_and_the_data_are() {
    let own = OwnImage { mounts_binary: true, ..made_image() };
    let backup = json!({"schedule": "0 * * * *", "keep": 3, "localPath": {"node": "w1", "path": "/srv/snapshots"}});
    let (tenant, desired, tls) = of(&json!({"backup": backup, "tolerations": [{"operator": "Exists"}]}));
    let cluster = tenant.cluster(&addresses()).unwrap();
    let taken = snapshots(&tenant, &cluster, &addresses(), &tls, &own).unwrap();
    assert_eq!(taken, snapshots(&tenant, &cluster, &addresses(), &tls, &own).unwrap(), "a second turn writes nothing");
    let names: Vec<_> = taken.iter().map(|one| (one["kind"].clone(), one["metadata"]["name"].clone())).collect();
    assert_eq!(names, [(json!("Secret"), json!("a-backup")), (json!("CronJob"), json!("a-backup"))]);
    let files = keys::from_data(&taken[0]["data"]);
    let known: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(known, ["apiserver-etcd-client.crt", "apiserver-etcd-client.key", "etcd/ca.crt"], "no key of a CA");
    assert_eq!(taken[1]["spec"]["schedule"], "0 * * * *");
    let pod = &taken[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"kubernetes.io/hostname": "w1"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    let command: Vec<String> = serde_json::from_value(pod["containers"][0]["command"].clone()).unwrap();
    has(&command, "--etcd=10.96.5.6:2379");
    has(&command, "--keep=3");
    let folder = tenant.folder(&keys::ca_hash(&tls).unwrap());
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["subPath"], folder);

    let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
    let made =
        |own: &OwnImage| restoring(&tenant, &cluster, &addresses(), &tls, own, "x.snapshot", now).unwrap().unwrap();
    let job = made(&own);
    assert_eq!(job["metadata"]["annotations"][super::super::restore::FILE], "x.snapshot");
    let pod = &job["spec"]["template"]["spec"];
    let command: Vec<String> = serde_json::from_value(pod["initContainers"][1]["command"].clone()).unwrap();
    has(&command, "/backup/x.snapshot");
    has(&command, "--bump-revision=1000000");
    has(&command, "--initial-cluster=a-etcd-0=https://10.96.5.6:2380");
    let volumes: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
    assert_eq!(volumes, [json!("data"), json!("hoist"), json!("backup")]);
    let volumes = made(&made_image())["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(volumes.as_array().unwrap().len(), 2, "hoist is in its image");

    let mut stopped = desired.objects.clone();
    stopped.extend(taken);
    stop(&mut stopped, true);
    assert_eq!(stopped.iter().find(|one| one["kind"] == "StatefulSet").unwrap()["spec"]["replicas"], 1);
    stop(&mut stopped, false);
    assert_eq!(stopped.last().unwrap()["spec"]["suspend"], true);
    for object in stopped.iter().filter(|one| one["spec"]["template"].is_object()) {
        assert_eq!(object["spec"]["replicas"], 0, "{object}");
    }
    let claim = json!({"backup": {"schedule": "0 * * * *", "keep": 3, "claimName": "c"}});
    let (claimed, _, tls) = of(&claim);
    let taken = snapshots(&claimed, &cluster, &addresses(), &tls, &own).unwrap();
    let pod = &taken[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({"node-role.kubernetes.io/control-plane": ""}), "where the binary is");
    assert_eq!(pod["tolerations"][0]["key"], "node-role.kubernetes.io/control-plane");
    let without = Tenant::read(&object(&json!({}))).unwrap();
    assert!(snapshots(&without, &cluster, &addresses(), &tls, &made_image()).unwrap().is_empty());
}

fn made_image() -> OwnImage {
    OwnImage { image: "r.io/hoist:1".into(), mounts_binary: false }
}

#[test]
fn three_members_have_a_place_a_name_and_an_address_each() {
    let (tenant, at) = of_three(&json!({}));
    let cluster = tenant.cluster(&at).unwrap();
    let tls = keys::issued(&cluster, &Tls::new(), OffsetDateTime::now_utc()).unwrap();
    let desired = super::desired(&tenant, &cluster, &at, &tls).unwrap();
    has(
        &command(&desired, "Deployment", "a-apiserver"),
        "--etcd-servers=https://10.96.5.6:2379,https://10.96.5.7:2379,https://10.96.5.8:2379",
    );
    let services = services(&tenant).unwrap();
    for (number, (workload, ip)) in
        [("a-etcd", "10.96.5.6"), ("a-etcd-1", "10.96.5.7"), ("a-etcd-2", "10.96.5.8")].into_iter().enumerate()
    {
        let etcd = command(&desired, "StatefulSet", workload);
        has(
            &etcd,
            "--initial-cluster=a-etcd-0=https://10.96.5.6:2380,a-etcd-1=https://10.96.5.7:2380,a-etcd-2=https://10.96.5.8:2380",
        );
        has(&etcd, &format!("--name=a-etcd-{number}"));
        has(&etcd, &format!("--initial-advertise-peer-urls=https://{ip}:2380"));
        has(&etcd, "--listen-peer-urls=https://0.0.0.0:2380");
        has(&etcd, "--peer-cert-allowed-hostname=a-etcd-0,a-etcd-1,a-etcd-2");
        let template = &find(&desired, "StatefulSet", workload)["spec"]["template"];
        let node = format!("w{}", number + 1);
        assert_eq!(template["spec"]["nodeSelector"], json!({"kubernetes.io/hostname": node}));
        let service = services.iter().find(|one| one["metadata"]["name"] == workload).unwrap();
        let (selector, labels) = (service["spec"]["selector"].as_object().unwrap(), &template["metadata"]["labels"]);
        assert!(selector.iter().all(|(name, value)| labels[name] == *value), "{service}");
        assert_eq!(selector["hoist.dev/member"], format!("a-etcd-{number}"), "no other member's pods");
        assert_eq!(service["spec"]["publishNotReadyAddresses"], true, "none is ready before they meet");
        let secret = &find(&desired, "Secret", workload)["data"];
        assert_eq!(keys::from_data(secret)["peer.crt"], tls[&format!("etcd/a-etcd-{number}/peer.crt")]);
    }
    assert_eq!(find(&desired, "PodDisruptionBudget", "a-etcd")["spec"]["maxUnavailable"], 1);

    let backup = json!({"backup": {"schedule": "0 * * * *", "keep": 3, "claimName": "c"}});
    let (tenant, at) = of_three(&backup);
    let taken = snapshots(&tenant, &cluster, &at, &tls, &made_image()).unwrap();
    let command = &taken[1]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"];
    let command: Vec<String> = serde_json::from_value(command.clone()).unwrap();
    has(&command, "--etcd=10.96.5.8:2379");
}

/// An operator that is replaced by this one must not replace the etcd of tenants, for which their requests wait.
#[test]
fn the_pod_of_an_only_member_is_what_it_was() {
    let (_, desired, _) = of(&json!({}));
    let set = find(&desired, "StatefulSet", "a-etcd");
    assert_eq!(set["spec"]["selector"]["matchLabels"], json!({"component": "etcd", "hoist.dev/tenant": "a"}));
    let mut template = set["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = "".into();
    template["spec"]["nodeSelector"].take();
    template["spec"]["containers"][0]["volumeMounts"][0]["subPath"].take();
    assert_eq!(files::sha256(template.to_string().as_bytes()), ONLY_MEMBER);
    assert!(
        desired.objects.iter().all(|one| one["kind"] != "PodDisruptionBudget" || one["metadata"]["name"] != "a-etcd")
    );
}

/// The sum of the pod's template that version 0.1 has made.
const ONLY_MEMBER: &str = "f679306a3f823acb508ea1e6a2ff09f1ca5f96e9cb1bd12ce1371a9844d770a1";

#[test]
fn a_volume_is_claimed_where_there_is_no_folder() {
    let (_, desired, _) = of(&json!({"etcd": {"volume": {"size": "4Gi", "storageClassName": "fast"}}}));
    let spec = &find(&desired, "StatefulSet", "a-etcd")["spec"];
    let claim = &spec["volumeClaimTemplates"][0]["spec"];
    assert_eq!(
        (&claim["storageClassName"], &claim["resources"]["requests"]["storage"]),
        (&json!("fast"), &json!("4Gi"))
    );
    assert_eq!(spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"], "Delete");
    let volumes = spec["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["name"] != "data"), "{volumes:?}");
    assert!(spec["template"]["spec"]["nodeSelector"].is_null());
}

#[test]
fn a_tenant_is_where_its_services_say() {
    let services = |kind: &str, address: Value| {
        let exposure = match address {
            Value::Null => json!({"type": kind}),
            address => json!({"type": kind, "address": address}),
        };
        Tenant::read(&object(&json!({"exposure": exposure}))).unwrap()
    };
    let etcd = json!({"spec": {"clusterIP": "10.96.5.6"}});
    let mut api = json!({"spec": {"clusterIP": "10.96.5.5", "ports": [{"nodePort": 30443}]}});
    let outside = |tenant: &Tenant, api: &Value| {
        addresses(tenant, api, std::slice::from_ref(&etcd)).map(|at| at.outside.to_string())
    };
    use super::addresses;
    assert_eq!(outside(&services("NodePort", json!("192.0.2.7")), &api).as_deref(), Some("192.0.2.7:30443"));
    assert_eq!(outside(&services("ClusterIP", json!(null)), &api).as_deref(), Some("10.96.5.5:6443"));
    let balanced = services("LoadBalancer", json!(null));
    assert_eq!(outside(&balanced, &api), None, "the load balancer has given none yet");
    api["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}});
    assert_eq!(outside(&balanced, &api).as_deref(), Some("192.0.2.9:6443"));
    assert_eq!(outside(&balanced, &json!({})), None);
}

#[test]
fn the_tenant_has_in_itself_what_a_cluster_has_and_no_key() {
    let (_, desired, _) = of(&json!({}));
    let has = |kind: &str, name: &str| {
        desired.inside.iter().any(|manifest| manifest.text("/kind") == kind && manifest.text("/metadata/name") == name)
    };
    for (kind, name) in [
        ("ConfigMap", "cluster-info"),
        ("ConfigMap", "kubeadm-config"),
        ("ClusterRoleBinding", "hoist:kubelet-bootstrap"),
        ("ClusterRoleBinding", "hoist:kube-apiserver-kubelet-client"),
        ("Deployment", "coredns"),
        ("DaemonSet", "kube-proxy"),
        ("DaemonSet", "kube-flannel-ds"),
        ("EndpointSlice", "kubernetes"),
        ("Endpoints", "kubernetes"),
    ] {
        assert!(has(kind, name), "{kind} {name}");
    }
    assert!(!has("DaemonSet", "kube-apiserver") && !has("ServiceAccount", "kube-apiserver"));
    assert!(desired.inside.iter().all(|manifest| manifest.text("/kind") != "Secret"));
    let slice = desired.inside.iter().find(|manifest| manifest.text("/kind") == "EndpointSlice").unwrap();
    assert_eq!(slice.object["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
    assert_eq!(slice.object["ports"][0]["port"], 30443);
}
