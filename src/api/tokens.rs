//! Bootstrap tokens in the cluster.

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use super::{Verdict, explain, is_not_found, verdict};
use crate::base::error::{Error, Result};
use crate::desired::tokens::{SECRET_TYPE, Token, secret_name};

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "kube-system")
}

/// What to type where the API does not do what was asked.
fn failed(action: impl Into<String>, error: &kube::Error) -> Error {
    let next = match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
            "use an admin's kubeconfig: --kubeconfig names it, or --asset-dir the folder that has it in auth/"
        }
        kube::Error::Api(_) => "`kubectl -n kube-system get secrets` shows what is there",
        _ => "see whether the API is served where the kubeconfig says: `kubectl --kubeconfig FILE get --raw /readyz`",
    };
    Error::Failed { action: action.into(), cause: explain(error), next: Some(next.into()) }
}

/// Makes a token that is not there yet.
///
/// # Errors
/// One that is there already; the API server's word.
pub async fn create(client: &Client, token: &Token) -> Result<()> {
    match secrets(client).create(&PostParams::default(), &token.to_secret()).await {
        Ok(_) => Ok(()),
        Err(error) if verdict(&error) == Verdict::Stale => Err(Error::Failed {
            action: "make the bootstrap token".into(),
            cause: format!("a token with the id {} exists already", token.id),
            next: Some(format!("`hoist token list` shows it, `hoist token delete {}` deletes it", token.id)),
        }),
        Err(error) => Err(failed("make the bootstrap token", &error)),
    }
}

/// Every token, by its id; those that have expired, too, while they are there.
///
/// # Errors
/// The API server's word.
pub async fn list(client: &Client) -> Result<Vec<Token>> {
    let params = ListParams::default().fields(&format!("type={SECRET_TYPE}"));
    let found = secrets(client).list(&params).await.map_err(|error| failed("list the bootstrap tokens", &error))?;
    let mut tokens: Vec<_> = found.items.iter().filter_map(Token::from_secret).collect();
    tokens.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(tokens)
}

/// The token with the public part `id`, if there is one.
///
/// # Errors
/// The API server's word.
pub async fn get(client: &Client, id: &str) -> Result<Option<Token>> {
    let secret = secrets(client).get_opt(&secret_name(id)).await;
    let secret = secret.map_err(|error| failed(format!("read the bootstrap token {id}"), &error))?;
    Ok(secret.as_ref().and_then(Token::from_secret))
}

/// Takes the token with the public part `id` away, and says whether it was there.
///
/// # Errors
/// The API server's word.
pub async fn delete(client: &Client, id: &str) -> Result<bool> {
    match secrets(client).delete(&secret_name(id), &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(failed(format!("delete the bootstrap token {id}"), &error)),
    }
}
