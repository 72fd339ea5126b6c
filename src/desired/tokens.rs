//! Bootstrap tokens: Secrets of kube-system, in the format of the API server and kubeadm. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::base::error::Finding;
use crate::base::time::rfc3339;

/// The type of such a Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group that `kubeadm join` reads the cluster's configuration as.
pub const DEFAULT_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";
/// What a token may be good for.
pub const USAGES: [&str; 2] = ["authentication", "signing"];

/// A bootstrap token. There is no `Debug`: it would print the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public part.
    pub id: String,
    /// The other.
    pub secret: String,
    /// What it is for, for people.
    pub description: String,
    /// Until when it counts; `None` is for ever.
    pub expires: Option<OffsetDateTime>,
    /// Some of [`USAGES`].
    pub usages: Vec<String>,
    /// What its bearers are beside `system:bootstrappers`.
    pub groups: Vec<String>,
}

/// The name of the Secret of the token with the public part `id`.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

impl Token {
    /// The whole of it.
    pub fn text(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// Its Secret.
    pub fn to_secret(&self) -> Secret {
        let mut data = BTreeMap::from([
            ("token-id".to_owned(), self.id.clone()),
            ("token-secret".to_owned(), self.secret.clone()),
        ]);
        let mut add = |key: &str, value: String| data.insert(key.to_owned(), value);
        if !self.description.is_empty() {
            add("description", self.description.clone());
        }
        if let Some(expires) = self.expires {
            add("expiration", rfc3339(expires));
        }
        if !self.groups.is_empty() {
            add("auth-extra-groups", self.groups.join(","));
        }
        for usage in &self.usages {
            add(&format!("usage-bootstrap-{usage}"), "true".into());
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(secret_name(&self.id)),
                namespace: Some("kube-system".into()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.into()),
            data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect()),
            ..Secret::default()
        }
    }

    /// The token of a Secret; `None` for one that the API server takes for none.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
        let id = text("token-id")?;
        if secret.metadata.name.as_deref() != Some(&*secret_name(&id)) {
            return None;
        }
        let expires = text("expiration").filter(|text| !text.is_empty());
        // What cannot be read has expired, for the API server, too.
        let expires = expires.map(|text| OffsetDateTime::parse(&text, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH));
        let usage = |usage: &&str| text(&format!("usage-bootstrap-{usage}")).as_deref() == Some("true");
        let groups = text("auth-extra-groups").unwrap_or_default();
        Some(Self {
            secret: text("token-secret")?,
            description: text("description").unwrap_or_default(),
            expires,
            usages: USAGES.iter().filter(|name| usage(name)).map(|name| (*name).to_owned()).collect(),
            groups: groups.split(',').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            id,
        })
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Why a kubelet with the token `text` would not be let in, where `known` is what the cluster has of its public part.
pub fn problem(text: &str, known: Option<&Token>, now: OffsetDateTime) -> Option<Finding> {
    const NEW: &str = "`hoist token create` makes one; `hoist token list` shows those that there are";
    let finding = |message: String| Some(Finding::new("--token", message).remedy(NEW));
    let id = text.split('.').next().unwrap_or_default();
    match known {
        None => finding(format!("the cluster has no token {id}: it was never made, was revoked, or has expired")),
        Some(known) if known.text() != text => {
            finding(format!("the cluster's token {id} has another second part: this one is mistyped"))
        }
        Some(known) if known.has_expired(now) => {
            let at = known.expires.map(rfc3339).unwrap_or_default();
            finding(format!("the token {id} has expired at {at}; here it is {}", rfc3339(now)))
        }
        Some(known) if !known.usages.iter().any(|usage| usage == "authentication") => {
            finding(format!("the token {id} lets no machine in: its usages lack authentication"))
        }
        Some(_) => None,
    }
}

/// Whether a token may have this group.
///
/// # Errors
/// What a group is.
pub fn group(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("system:bootstrappers:");
    let is_fine = rest.is_some_and(|rest| {
        let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        rest.len() <= 256
            && rest.bytes().all(|byte| is_letter(byte) || b":-".contains(&byte))
            && rest.bytes().last().is_some_and(is_letter)
    });
    match is_fine {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("must begin with system:bootstrappers:, as {DEFAULT_GROUP}, in small letters, digits, : and -"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            id: "abcdef".into(),
            secret: "0123456789abcdef".into(),
            description: "mine".into(),
            expires: Some(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()),
            usages: vec!["authentication".into(), "signing".into()],
            groups: vec![DEFAULT_GROUP.into()],
        }
    }

    #[test]
    fn its_secret_is_as_kubeadm_makes_it() {
        let secret = token().to_secret();
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        let data = secret.data.as_ref().unwrap();
        let text = |key: &str| std::str::from_utf8(&data[key].0).unwrap().to_owned();
        assert_eq!(text("expiration"), "2027-01-15T08:00:00Z");
        assert_eq!(text("auth-extra-groups"), DEFAULT_GROUP);
        assert_eq!(
            (text("usage-bootstrap-authentication"), text("usage-bootstrap-signing")),
            ("true".into(), "true".into())
        );
        assert_eq!((text("token-id"), text("token-secret")), ("abcdef".into(), "0123456789abcdef".into()));
        assert!(Token::from_secret(&secret) == Some(token()));
        let mut bare = token();
        (bare.expires, bare.description) = (None, String::new());
        (bare.usages, bare.groups) = (Vec::new(), Vec::new());
        assert!(Token::from_secret(&bare.to_secret()) == Some(bare));
    }

    #[test]
    fn a_secret_of_another_name_is_no_token() {
        let mut secret = token().to_secret();
        secret.metadata.name = Some("bootstrap-token-other1".into());
        assert!(Token::from_secret(&secret).is_none());
        let mut secret = token().to_secret();
        secret.data.as_mut().unwrap().insert("expiration".into(), ByteString(b"soon".to_vec()));
        assert!(Token::from_secret(&secret).unwrap().has_expired(OffsetDateTime::now_utc()));
    }

    #[test]
    fn what_lets_nobody_in_is_told_without_the_secret() {
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        let later = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let said = |text: &str, known: Option<&Token>, now| problem(text, known, now).map(|finding| finding.message);
        let text = token().text();
        assert_eq!(said(&text, Some(&token()), now), None);
        let mut signing = token();
        signing.usages.remove(0);
        for (said, word) in [
            (said(&text, None, now), "was revoked"),
            (said("abcdef.fedcba9876543210", Some(&token()), now), "mistyped"),
            (said(&text, Some(&token()), later), "has expired at 2027-01-15T08:00:00Z"),
            (said(&text, Some(&signing), now), "lack authentication"),
        ] {
            let said = said.unwrap();
            assert!(said.contains(word) && !said.contains("0123456789") && !said.contains("fedcba"), "{said}");
        }
    }

    #[test]
    fn groups_are_those_of_bootstrappers() {
        assert!(group(DEFAULT_GROUP).is_ok() && group("system:bootstrappers:a-1:b").is_ok());
        for bad in [
            "system:masters",
            "system:bootstrappers:",
            "system:bootstrappers:A",
            "system:bootstrappers:a:",
            "system:bootstrappers:a,b",
        ] {
            assert!(group(bad).is_err(), "{bad}");
        }
    }
}
