//! The commands of docs/recover.md, each run by a test of tests/e2e/recover.rs by its name here, as it stands there.

pub const BACKUP: &str =
    "hoist backup --asset-dir /etc/hoist/assets --output-file /root/backup.tar --recipient AGE_RECIPIENT";
pub const PLAIN_BACKUP: &str = "hoist backup --asset-dir /etc/hoist/assets --output-file /root/plain.tar";
pub const MAKE_FOLDER: &str = "mkdir -m 700 /root/unpacked";
pub const UNPACK: &str = "tar -x -f /root/plain.tar -C /root/unpacked";
pub const CHECK_SUMS: &str = "cd /root/unpacked && sha256sum --check SHA256SUMS";
pub const SNAPSHOT_STATUS: &str = "etcdutl snapshot status /root/unpacked/etcd-snapshot.db";
pub const DRY_RUN: &str = "hoist recover --asset-dir /etc/hoist/assets --dry-run";
pub const RECOVER: &str = "hoist recover --asset-dir /etc/hoist/assets";
pub const FORCE: &str = "hoist recover --asset-dir /etc/hoist/assets --force-manifests";
pub const LOST: &str = "hoist recover";
pub const SAVE_SNAPSHOT: &str = "etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/hoist/assets/tls/etcd/ca.crt --cert /etc/hoist/assets/tls/apiserver-etcd-client.crt --key /etc/hoist/assets/tls/apiserver-etcd-client.key snapshot save /root/snapshot.db";
pub const RESTORE_SNAPSHOT: &str = "hoist recover --asset-dir /etc/hoist/assets --etcd-snapshot /root/snapshot.db";
pub const RESTORE_BACKUP: &str =
    "hoist recover --asset-dir /etc/hoist/assets --backup /root/backup.tar --identity /root/key.txt";
pub const FIND_TOKEN: &str =
    r#"TOKEN=$(sed -n 's/^ *token: *"\{0,1\}\([a-z0-9.]*\).*/\1/p' /etc/hoist/assets/auth/kubeconfig-kubelet)"#;
pub const MAKE_TOKEN: &str = "kubectl --kubeconfig /etc/hoist/assets/auth/kubeconfig -n kube-system create secret generic bootstrap-token-${TOKEN%.*} --type bootstrap.kubernetes.io/token --from-literal token-id=${TOKEN%.*} --from-literal token-secret=${TOKEN#*.} --from-literal usage-bootstrap-authentication=true --from-literal expiration=$(date -u -d '1 hour' +%Y-%m-%dT%H:%M:%SZ)";

pub const FORCE_NEW_CLUSTER: &str = "hoist recover --asset-dir /etc/hoist/assets --force-new-cluster";

/// All of them, in the page's order.
pub const ALL: [&str; 16] = [
    BACKUP,
    PLAIN_BACKUP,
    MAKE_FOLDER,
    UNPACK,
    CHECK_SUMS,
    SNAPSHOT_STATUS,
    DRY_RUN,
    RECOVER,
    FORCE,
    LOST,
    SAVE_SNAPSHOT,
    RESTORE_SNAPSHOT,
    FORCE_NEW_CLUSTER,
    RESTORE_BACKUP,
    FIND_TOKEN,
    MAKE_TOKEN,
];
