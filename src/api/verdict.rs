//! The meaning of an API server's answer for the caller. This is the one place that classifies answers.

use std::time::Duration;

use kube::core::Status;

use crate::base::error::{Error, Finding};

/// A server that asks for more is asked again all the same.
const LONGEST: Duration = Duration::from_secs(60);

/// What an answer that is no success means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The server's own word on the object: asking again cannot help.
    Refused,
    /// Somebody else owns fields that were to be applied.
    Conflict,
    /// What was asked for, its namespace or its kind is not there.
    Missing,
    /// It is there already, or not as it was read: whoever asks must look again first.
    Stale,
    /// Asking again may help, after so long where the server says when.
    Again(Option<Duration>),
}

/// Sorts an answer, or what came in place of one.
pub fn verdict(error: &kube::Error) -> Verdict {
    match error {
        kube::Error::Api(status) => of_status(status),
        // Nobody has answered.
        _ => Verdict::Again(None),
    }
}

fn of_status(status: &Status) -> Verdict {
    let says = |text: &str| status.message.contains(text);
    let again = || {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        Verdict::Again((seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST)))
    };
    match status.code {
        // Who asks is not known yet, as while a server's caches fill.
        401 | 408 | 429 => again(),
        403 if heals_by_itself(status) => again(),
        404 => Verdict::Missing,
        409 if status.message.starts_with("Apply failed with") => Verdict::Conflict,
        // The object that the request names by its uid is another one, or was never here.
        409 if says("uid mismatch") || says("UID in precondition") => Verdict::Refused,
        409 => Verdict::Stale,
        400..500 => Verdict::Refused,
        // etcd takes no more in one object, however often it is asked.
        500 if says("etcdserver: request is too large") || says("trying to send message larger than max") => {
            Verdict::Refused
        }
        _ => again(),
    }
}

/// Whether what forbids it passes without anybody's doing.
fn heals_by_itself(status: &Status) -> bool {
    let says = |text: &str| status.message.contains(text);
    // A namespace has its account `default` moments after it is made; pods are refused until then.
    says("error looking up service account")
        // The server has just been started: it knows bindings, and not yet the roles that they name.
        || (says("RBAC: ") && says("role.rbac.authorization.k8s.io") && says("not found"))
        // A quota that was made a moment ago, of which nothing has been counted yet.
        || says("status unknown for quota")
        // Admission has not read yet what it judges by: policies, webhooks, namespaces.
        || says("not yet ready to handle request")
}

/// The error of a request that came to nothing, with when to ask again where the server has said that.
pub fn failed(action: impl Into<String>, error: &kube::Error) -> Error {
    let (action, cause) = (action.into(), super::explain(error));
    match verdict(error) {
        Verdict::Again(Some(after)) => Error::Later { action, cause, after },
        _ => Error::Failed { action, cause, next: None },
    }
}

/// The same of a request about `object`, which is refused for good where the server says so.
pub fn refused_or_failed(object: &str, action: impl Into<String>, error: &kube::Error) -> Error {
    match verdict(error) {
        Verdict::Refused => Error::Refused(vec![Finding::new(object, super::explain(error))]),
        _ => failed(action, error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(code: u16, reason: &str, message: &str, seconds: u32) -> kube::Error {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason,
            "code": code, "details": {"retryAfterSeconds": seconds}});
        kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
    }

    /// The messages are those of Kubernetes 1.36.
    #[test]
    fn every_answer_is_sorted() {
        use Verdict::{Again, Conflict, Missing, Refused, Stale};
        let uid = "Operation cannot be fulfilled on configmaps \"a\": uid mismatch: the provided object specified uid 0e5c, and no existing object was found";
        let other_uid = "Operation cannot be fulfilled on configmaps \"a\": Precondition failed: UID in precondition: 0e5c, UID in object meta: 77ab";
        let modified = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
        let webhook = "Internal error occurred: failed calling webhook \"w\": failed to call webhook: Post \"https://w.demo.svc:443/\": dial tcp 10.96.0.9:443: connect: connection refused";
        let cold = "configmaps \"a\" is forbidden: User \"kubernetes-admin\" cannot patch resource \"configmaps\" in API group \"\" in the namespace \"a\": RBAC: clusterrole.rbac.authorization.k8s.io \"cluster-admin\" not found";
        let rbac = "configmaps \"a\" is forbidden: User \"u\" cannot patch resource \"configmaps\" in API group \"\" in the namespace \"a\"";
        let table = [
            (400, "BadRequest", "metadata.managedFields must be nil", Refused),
            (400, "BadRequest", "admission webhook \"w\" denied the request: no", Refused),
            (401, "Unauthorized", "Unauthorized", Again(None)),
            (403, "Forbidden", rbac, Refused),
            (403, "Forbidden", cold, Again(None)),
            (
                403,
                "Forbidden",
                "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
                Refused,
            ),
            (403, "Forbidden", "pods \"a\" is forbidden: status unknown for quota: q, resources: pods", Again(None)),
            (403, "Forbidden", "pods \"a\" is forbidden: not yet ready to handle request", Again(None)),
            (
                403,
                "Forbidden",
                "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": hostNetwork",
                Refused,
            ),
            (
                403,
                "Forbidden",
                "pods \"a\" is forbidden: error looking up service account demo/default: serviceaccount \"default\" not found",
                Again(None),
            ),
            (
                403,
                "Forbidden",
                "configmaps \"a\" is forbidden: unable to create new content in namespace demo because it is being terminated",
                Refused,
            ),
            (403, "Forbidden", "admission webhook \"w\" denied the request: no", Refused),
            (404, "NotFound", "namespaces \"demo\" not found", Missing),
            (404, "NotFound", "the server could not find the requested resource", Missing),
            (405, "MethodNotAllowed", "the server does not allow this method on the requested resource", Refused),
            (408, "Timeout", "request timed out", Again(None)),
            (409, "AlreadyExists", "configmaps \"a\" already exists", Stale),
            (409, "Conflict", "Apply failed with 1 conflict: conflict with \"kubectl-edit\": .data.key", Conflict),
            (409, "Conflict", modified, Stale),
            (409, "Conflict", uid, Refused),
            (409, "Conflict", other_uid, Refused),
            (410, "Expired", "The provided continue parameter is too old", Refused),
            (413, "RequestEntityTooLarge", "limit is 3145728", Refused),
            (415, "UnsupportedMediaType", "the body of the request was in an unknown format", Refused),
            (422, "Invalid", "ConfigMap \"a\" is invalid: metadata.name: Invalid value", Refused),
            (422, "Invalid", "Secret \"a\" is invalid: data: Too long: may not be more than 1048576 bytes", Refused),
            (429, "TooManyRequests", "the server has received too many requests", Again(None)),
            (500, "InternalError", webhook, Again(None)),
            (500, "InternalError", "etcdserver: request timed out", Again(None)),
            (500, "InternalError", "etcdserver: leader changed", Again(None)),
            (500, "InternalError", "etcdserver: request is too large", Refused),
            (
                500,
                "InternalError",
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2800000 vs. 2097152)",
                Refused,
            ),
            (503, "ServiceUnavailable", "the server is currently unable to handle the request", Again(None)),
            (504, "Timeout", "Timeout: request did not complete within requested timeout", Again(None)),
        ];
        for (code, reason, message, expected) in table {
            assert_eq!(verdict(&status(code, reason, message, 0)), expected, "{code} {message}");
        }
    }

    #[test]
    fn the_server_says_when_to_ask_again() {
        let busy = status(429, "TooManyRequests", "later", 7);
        assert_eq!(verdict(&busy), Verdict::Again(Some(Duration::from_secs(7))));
        assert_eq!(failed("list", &busy).after(), Some(Duration::from_secs(7)));
        assert_eq!(verdict(&status(503, "ServiceUnavailable", "later", 86_400)), Verdict::Again(Some(LONGEST)));
        assert_eq!(failed("list", &status(500, "InternalError", "x", 0)).after(), None);
        let lost = kube::Error::Service(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        assert_eq!(verdict(&lost), Verdict::Again(None));
    }
}
