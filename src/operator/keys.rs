//! A tenant's keys and certificates: all of its tls/ in one Secret, made once. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::base::error::Result;
use crate::desired::config::Cluster;
use crate::desired::pki::{self, UserFiles};
use crate::desired::renewal;
use crate::desired::secrets::Tls;

/// When a leaf is due within its time: tenants of one age need not differ, as each has its own Secret.
const JITTER: f64 = 0.5;

/// The name of the Secret.
pub fn name(tenant: &str) -> String {
    format!("{tenant}-pki")
}

/// What belongs in tls/ of a tenant, where `existing` is there: no key and no CA of it is replaced. A leaf that is due is
/// issued anew for the key that it has.
///
/// # Errors
/// Files that do not fit together: somebody has changed the Secret.
pub fn issued(cluster: &Cluster, existing: &Tls, now: OffsetDateTime) -> Result<Tls> {
    let mut kept = existing.clone();
    for leaf in renewal::leaves(existing) {
        if renewal::due(&leaf, cluster.pki.certificate_validity, JITTER) <= now {
            kept.remove(&format!("{}.crt", leaf.stem));
        }
    }
    Ok(pki::issue(cluster, &kept, &UserFiles::default(), now)?.files)
}

/// The `data` of a Secret with these files. A key of it has no slash.
pub fn to_data<'a>(files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Value {
    let entry = |(path, content): (&String, &Vec<u8>)| (path.replace('/', "_"), STANDARD.encode(content).into());
    Value::Object(files.into_iter().map(entry).collect::<Map<_, _>>())
}

/// The files in the `data` of a Secret.
pub fn from_data(data: &Value) -> Tls {
    let entry = |(key, value): (&String, &Value)| Some((key.replace('_', "/"), STANDARD.decode(value.as_str()?).ok()?));
    data.as_object().into_iter().flatten().filter_map(entry).collect()
}

/// The hash of the public key of its CA, as `kubeadm join` takes it.
pub fn ca_hash(tls: &Tls) -> Option<String> {
    pki::pins(tls.get("ca.crt")?).ok()?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tenant::Tenant;
    use super::super::tenant::tests::{addresses, object};
    use super::*;

    #[test]
    fn keys_are_made_once_and_leaves_are_renewed_for_the_keys_they_have() {
        let cluster = Tenant::read(&object(&json!({}))).unwrap().cluster(&addresses()).unwrap();
        let made = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let first = issued(&cluster, &Tls::new(), made).unwrap();
        assert!(first.contains_key("etcd/a-etcd-0/server.crt") && first.contains_key("ca.key"));
        assert_eq!(from_data(&to_data(&first)), first, "nothing is lost in a Secret");
        assert_eq!(issued(&cluster, &first, made + time::Duration::days(200)).unwrap(), first);

        let later = issued(&cluster, &first, made + time::Duration::days(300)).unwrap();
        let changed: Vec<_> = first.iter().filter(|(path, old)| later.get(*path) != Some(old)).collect();
        assert!(changed.iter().all(|(path, _)| path.ends_with(".crt")) && changed.len() > 6, "{}", changed.len());
        assert_eq!(first["ca.crt"], later["ca.crt"]);
        assert_eq!(ca_hash(&first), ca_hash(&later));
        assert!(ca_hash(&first).unwrap().starts_with("sha256:"));
        assert_eq!(ca_hash(&Tls::new()), None);
    }
}
