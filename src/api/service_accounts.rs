//! Tokens of service accounts: by which key who signs them, which keys are accepted, and who has which.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::sleep;

use super::controllers::pods_of;
use super::observe::{self, pod_view};
use super::{failed, is_not_found, page, pages, timestamp};
use crate::base::error::{Error, Result};
use crate::desired::rotation::tokens::{InSecret, OfPod};

/// Accounts without rights.
const ACCOUNT: &str = "kube-apiserver";
/// The same.
const OF_CONTROLLERS: &str = "kube-controller-manager";
/// The type of Secrets that get a token without an end.
const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation of such a Secret with its account.
const NAME: &str = "kubernetes.io/service-account.name";
/// The Secret by which the controller manager is asked.
const PROBE: &str = "hoist-rotation-probe";
/// How often it is looked whether the controller manager has filled it, and how long.
const LOOKS: u32 = 50;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// The shortest life of a token, in seconds.
const SHORTEST: i64 = 600;
/// How long a token of a pod lives that says nothing of it, in seconds.
const DEFAULT: i64 = 3600;
const STALE: &str = "serviceaccount_stale_tokens_total ";
/// How many objects are asked for at once.
const PAGE: u32 = 100;

/// The name of the key by which the API server of `client` signs, and of those that it accepts.
///
/// # Errors
/// Why it does not say.
pub async fn keys_of_server(client: &Client) -> Result<Vec<String>> {
    let action = "ask an API server by which key it signs tokens";
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), "kube-system");
    let spec = TokenRequestSpec { expiration_seconds: Some(SHORTEST), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let made = api.create_token_request(ACCOUNT, &PostParams::default(), &request).await;
    let made = made.map_err(|error| failed(action, &error))?.status.map(|status| status.token).unwrap_or_default();
    let signs = key_of(&made).ok_or_else(|| Error::failed(action, "its token names no key"))?;
    let action = "ask an API server which keys of tokens it accepts";
    let text = page(client, "/openid/v1/jwks", action).await?;
    let set: Value = serde_json::from_str(&text).map_err(|error| Error::failed(action, error))?;
    let accepted = set["keys"].as_array().into_iter().flatten().filter_map(|key| key["kid"].as_str());
    Ok([signs].into_iter().chain(accepted.map(str::to_owned)).collect())
}

/// The name of the key that has signed a token.
fn key_of(token: &str) -> Option<String> {
    use base64::Engine;
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    header["kid"].as_str().map(str::to_owned)
}

/// Which controller manager leads; empty where none does.
///
/// # Errors
/// The API server's word.
pub async fn leader(client: &Client) -> Result<String> {
    Ok(observe::lease(client, OF_CONTROLLERS).await?.map(|lease| lease.holder).unwrap_or_default())
}

/// The name of the key by which the controller manager that leads signs: it fills a Secret for it, which is deleted again.
///
/// # Errors
/// The API server's word; nobody fills it.
pub async fn key_of_leader(client: &Client) -> Result<String> {
    let action = "ask the controller manager by which key it signs tokens";
    let api: Api<Secret> = Api::namespaced(client.clone(), "kube-system");
    let delete = async || match api.delete(PROBE, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(failed(action, &error)),
        _ => Ok(()),
    };
    // One that was killed has left it.
    delete().await?;
    let probe = Secret {
        metadata: ObjectMeta {
            name: Some(PROBE.into()),
            annotations: Some([(NAME.to_owned(), OF_CONTROLLERS.to_owned())].into()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), "hoist".to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.into()),
        ..Secret::default()
    };
    api.create(&PostParams::default(), &probe).await.map_err(|error| failed(action, &error))?;
    let mut key = None;
    for _ in 0..LOOKS {
        let there = api.get_opt(PROBE).await.map_err(|error| failed(action, &error))?;
        key = there.as_ref().and_then(token_of).and_then(|token| key_of(&token));
        if key.is_some() {
            break;
        }
        sleep(PAUSE).await;
    }
    delete().await?;
    key.ok_or_else(|| {
        Error::failed(action, "none has filled the Secret kube-system/hoist-rotation-probe in ten seconds")
    })
}

fn token_of(secret: &Secret) -> Option<String> {
    let token = secret.data.as_ref()?.get("token")?;
    String::from_utf8(token.0.clone()).ok()
}

/// The tokens in Secrets.
///
/// # Errors
/// The API server's word.
pub async fn in_secrets(client: &Client) -> Result<Vec<InSecret>> {
    let api: Api<Secret> = Api::all(client.clone());
    let params = ListParams::default().limit(PAGE).fields(&format!("type={TYPE}"));
    let mut found = Vec::new();
    let take = |secret: Secret| {
        let name = format!("{}/{}", secret.namespace().unwrap_or_default(), secret.name_any());
        found.extend(token_of(&secret).and_then(|token| key_of(&token)).map(|key| InSecret { name, key }));
    };
    let listed = pages::each(params, async |params| api.list(params).await, take).await;
    listed.map_err(|error| failed("list the Secrets with tokens of service accounts", &error))?;
    Ok(found)
}

/// The pods that have tokens, of those that have not ended.
///
/// # Errors
/// The API server's word.
pub async fn of_pods(client: &Client) -> Result<Vec<OfPod>> {
    let api: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().limit(PAGE).fields("status.phase!=Succeeded,status.phase!=Failed");
    let mut found = Vec::new();
    let listed = pages::each(params, async |params| api.list(params).await, |pod| found.extend(of_pod(&pod))).await;
    listed.map_err(|error| failed("list the pods that have tokens of service accounts", &error))?;
    Ok(found)
}

fn of_pod(pod: &Pod) -> Option<OfPod> {
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    let lives = sources.filter_map(|source| Some(source.service_account_token.as_ref()?.expiration_seconds));
    let lives = lives.map(|seconds| seconds.unwrap_or(DEFAULT)).max()?;
    Some(OfPod {
        name: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
        made: timestamp::moment(pod.metadata.creation_timestamp.as_ref()?.0),
        lives: Duration::from_secs(u64::try_from(lives).unwrap_or_default()),
    })
}

/// When the last of the self-hosted API servers that run has begun; `None` where none says so.
///
/// # Errors
/// The API server's word.
pub async fn servers_begun(client: &Client) -> Result<Option<OffsetDateTime>> {
    let pods = pods_of(client, ACCOUNT, &ListParams::default()).await?;
    let begun = |pod: &Pod| {
        if pod_view(pod).mirror {
            return None;
        }
        let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
        let running = containers.iter().find(|status| status.name == ACCOUNT)?.state.as_ref()?.running.as_ref()?;
        Some(timestamp::moment(running.started_at.as_ref()?.0))
    };
    Ok(pods.iter().filter_map(begun).max())
}

/// How many tokens the API server of `client` was shown, since it began, that should have been renewed.
///
/// # Errors
/// Why it does not say.
pub async fn stale(client: &Client) -> Result<u64> {
    let text = page(client, "/metrics", "ask an API server how many old tokens it was shown").await?;
    Ok(stale_in(&text))
}

/// A counter is there from its first count on.
fn stale_in(metrics: &str) -> u64 {
    let value =
        metrics.lines().find_map(|line| line.strip_prefix(STALE)).and_then(|value| value.trim().parse::<f64>().ok());
    // It counts, in whole numbers.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    value.map_or(0, |value| value as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_names_its_key_and_a_pod_its_tokens_lives() {
        // {"alg":"ES256","kid":"k1"}
        assert_eq!(key_of("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0.e30.x").as_deref(), Some("k1"));
        assert_eq!((key_of(""), key_of("x.y.z")), (None, None));
        let pod = |volumes: Value| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2026-07-01T12:00:00Z"},
                "spec": {"containers": [], "volumes": volumes}
            }))
            .unwrap();
            of_pod(&pod).map(|pod| (pod.name, pod.lives.as_secs()))
        };
        let token = |fields: Value| json!({"serviceAccountToken": fields});
        let projected = |sources: Vec<Value>| json!({"name": "v", "projected": {"sources": sources}});
        assert_eq!(pod(json!([])), None);
        assert_eq!(pod(json!([projected(vec![json!({"configMap": {"name": "x"}})])])), None);
        let short = projected(vec![token(json!({"path": "t", "expirationSeconds": 3607}))]);
        let long = projected(vec![token(json!({"path": "t", "expirationSeconds": 7200}))]);
        assert_eq!(pod(json!([short, long])), Some(("n/p".into(), 7200)));
        assert_eq!(pod(json!([projected(vec![token(json!({"path": "t"}))])])), Some(("n/p".into(), 3600)));
    }

    #[test]
    fn stale_tokens_are_counted() {
        let metrics = "# TYPE serviceaccount_stale_tokens_total counter\nserviceaccount_stale_tokens_total 12\n";
        assert_eq!((stale_in(metrics), stale_in("x 1\n")), (12, 0));
    }
}
