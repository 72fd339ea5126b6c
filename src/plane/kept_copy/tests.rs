use super::*;
use crate::node::images::Followed;
use crate::node::system;

fn assets() -> (AssetSet, Cluster) {
    let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n- {name: c2, address: 10.0.0.2}\n- {name: c3, address: 10.0.0.3}\n";
    let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
    (crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap(), cluster)
}

fn host() -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
    (root, host)
}

#[test]
fn it_has_what_this_controllers_bridge_needs_and_no_more_keys() {
    let (assets, cluster) = assets();
    let (_root, host) = host();
    let copy = Copy::new(&assets, &cluster, &cluster.controllers[1]);
    assert!(copy.store(&host).unwrap() && !copy.store(&host).unwrap() && copy.stands(&host));
    let read = Copy::load(&host).unwrap().unwrap();
    let (read_cluster, controller) = read.cluster().unwrap();
    assert_eq!((&read_cluster, controller.name.as_str()), (&cluster, "c2"));
    crate::plane::bridge::Bridge::new(&host).plan(&read.assets, &read_cluster, &controller).unwrap();
    let keys: Vec<_> = read.assets.files.keys().filter(|path| path.ends_with(".key")).cloned().collect();
    // A new controller makes its own certificates by it.
    assert!(keys.iter().any(|key| key == "tls/etcd/ca.key"), "{keys:?}");
    // By it guard renews what the API server shows to others.
    assert!(keys.iter().any(|key| key == "tls/front-proxy-ca.key"), "{keys:?}");
    for absent in ["tls/etcd/c1/peer.key", "tls/kubelet/c3/client.key"] {
        assert!(assets.files.contains_key(absent) && !keys.iter().any(|key| key == absent), "{absent}: {keys:?}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path(&host)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_shared_part_is_of_no_controller_and_is_completed_by_one() {
    let (assets, cluster) = assets();
    let own = Copy::new(&assets, &cluster, &cluster.controllers[0]);
    let shared = own.shared();
    assert!(!shared.to_json().contains("tls/etcd/c1/") && shared.controller.is_none());
    assert!(shared.assets.files.contains_key("manifests/kube-apiserver/daemonset.yaml"));
    assert!(shared == Copy::new(&assets, &cluster, &cluster.controllers[2]).shared());
    assert!(Copy::parse(shared.to_json().as_bytes()).unwrap().completed(&own) == own);
}

#[test]
fn a_users_large_manifests_stay_on_the_disk() {
    let (mut assets, cluster) = assets();
    assets.files.insert("manifests/user.yaml".into(), File::public("a".repeat(SECRET_LIMIT)));
    let own = Copy::new(&assets, &cluster, &cluster.controllers[0]);
    let shared = own.shared();
    assert!(shared.to_json().len() < SECRET_LIMIT && !shared.to_json().contains("manifests/user.yaml"));
    // The bridge mounts these.
    assert!(shared.assets.files.contains_key(server_config::PATH));
    assert!(shared.completed(&own) == own);
}

#[test]
fn a_torn_or_tampered_one_is_told_and_not_used() {
    let (assets, cluster) = assets();
    let (_root, host) = host();
    assert!(Copy::load(&host).unwrap().is_none());
    let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
    copy.store(&host).unwrap();
    let whole = std::fs::read_to_string(path(&host)).unwrap();
    let told = |text: &str| {
        std::fs::write(path(&host), text).unwrap();
        Copy::load(&host).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(told(&whole[..whole.len() / 2]).contains("it is torn"));
    assert!(told(&whole.replace("--secure-port=6444", "--secure-port=6445")).contains("checksum"));
    assert!(told(&whole.replace("bridge/v1", "bridge/v9")).contains("this hoist reads hoist.bridge/v1"));
    assert_eq!(told(&whole), "");
}

/// What guard keeps is in every cluster's Secret: add-ons, which may be large and hold users' Secrets, are not.
#[test]
fn add_ons_stay_out_of_it_and_of_an_older_one() {
    let (mut assets, cluster) = assets();
    for path in ["addons/db/secret.yaml", "first-boot/c1.yaml", "notes.txt"] {
        assets.files.insert(path.into(), File::public("a".repeat(2 << 20)));
    }
    let (_root, host) = host();
    let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
    let paths = |copy: &Copy| copy.assets.files.keys().cloned().collect::<Vec<_>>();
    let strange = |path: &String| path.starts_with("addons/") || path.starts_with("first-boot/") || path == "notes.txt";
    assert!(!paths(&copy).iter().any(strange), "{:?}", paths(&copy));
    assert!(copy.shared().to_json().len() < SECRET_LIMIT);
    assert!(copy.shared().assets.files.contains_key("manifests/kube-apiserver/daemonset.yaml"), "nothing else goes");
    // As an older hoist has written it.
    let mut older = copy.clone();
    older.assets.files.insert("addons/db/secret.yaml".into(), File::private("kind: Secret"));
    older.store(&host).unwrap();
    let read = Copy::load(&host).unwrap().unwrap();
    assert!(read.has_more && paths(&read) == paths(&copy) && !copy.stands(&host));
    read.store(&host).unwrap();
    assert!(copy.stands(&host) && !std::fs::read_to_string(path(&host)).unwrap().contains("addons/"));
}

#[test]
fn what_is_written_can_be_read_again() {
    let (mut assets, cluster) = assets();
    let (_root, host) = host();
    for name in ["one", "two"] {
        assets.files.insert(format!("manifests/{name}.yaml"), File::public("a".repeat(9 << 20)));
    }
    let (copy, left_out) = Copy::fitting(&assets, &cluster, &cluster.controllers[0], LIMIT);
    assert_eq!(left_out, ["manifests/two.yaml"]);
    copy.store(&host).unwrap();
    assert!(Copy::load(&host).unwrap().unwrap() == copy);
    let mut large = copy;
    large.assets.files.insert("tls/large".into(), File::private("a".repeat(9 << 20)));
    let error = large.store(&host).unwrap_err().to_string();
    assert!(error.contains("is the limit of guard's copy"), "{error}");
    assert!(Copy::load(&host).unwrap().is_some(), "what stood stands");
}

#[test]
fn what_was_noted_beside_is_kept_and_makes_no_other() {
    let (assets, cluster) = assets();
    let (_root, host) = host();
    let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
    let mut noted = copy.clone();
    let followed = Followed { from: "a:1".into(), to: "a:2".into() };
    noted.images.insert("kube-apiserver".into(), followed);
    noted.assets.files.insert(CLUSTER_ID.into(), File::private("uid\n"));
    noted.store(&host).unwrap();
    assert!(copy.stands(&host) && copy.clone().keeping(&host) == noted);
    assert_eq!(noted.cluster_id().as_deref(), Some("uid"));
    let shared = noted.shared();
    assert!(shared.images.is_empty() && shared.cluster_id().is_some() && shared.completed(&noted) == noted);
}
