//! Approves the serving certificates of kubelets, turn by turn. `super::approve` decides which.
//!
//! Approval is not urgent: only `kubectl logs` and the like need these certificates. A request that was not approved
//! is judged again in ever longer intervals: a Node may get an address later, and another Node may go.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::approve::{Addresses, Reserved, Verdict, judge, node_of};
use super::requests::{self, Pending};
use super::{controllers, endpoints};
use crate::base::error::Result;

/// How long it takes until a request that was not approved is judged again, at first.
const AGAIN: Duration = Duration::from_secs(1);
/// And at last, where it waits for its Node.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// And at last, where it was refused.
const REFUSE_LIMIT: Duration = Duration::from_secs(600);

/// Approves, turn by turn.
#[derive(Default)]
pub struct Approver {
    judged: Judged,
}

/// What is new of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// What was said to a request, and why.
    pub text: String,
    /// Whether it was approved.
    pub is_approved: bool,
}

impl Approver {
    /// Judges what is due of the requests that wait, and tells `news` what is new.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn turn(&mut self, client: &Client, reserved: &Reserved, mut news: impl FnMut(News)) -> Result<()> {
        let pending = requests::pending(client).await?;
        self.judged.retain(&pending);
        let mut now = None;
        for one in pending.iter().filter(|one| self.judged.is_due(one, Instant::now())).collect::<Vec<_>>() {
            let verdict = self.judge(client, one, reserved, &mut now).await?;
            let is_approved = verdict == Verdict::Approve;
            if is_approved {
                requests::approve(client, one).await?;
            }
            let text = match &verdict {
                Verdict::Approve => {
                    format!("the serving certificate of {} is approved ({})", one.asked.username, one.name)
                }
                Verdict::Wait(why) => format!("the request {} waits: {why}", one.name),
                Verdict::Refuse(why) => format!("the request {} is not approved: {why}", one.name),
            };
            if self.judged.note(one, &verdict, Instant::now()) {
                news(News { text, is_approved });
            }
        }
        Ok(())
    }

    /// By its own Node, which is one object, and only if that has nothing against it by all others.
    async fn judge(
        &self,
        client: &Client,
        one: &Pending,
        reserved: &Reserved,
        now: &mut Option<(BTreeMap<String, Addresses>, Reserved)>,
    ) -> Result<Verdict> {
        let mut own = BTreeMap::new();
        if let Some(name) = node_of(&one.asked)
            && let Some(addresses) = requests::node_addresses(client, name).await?
        {
            own.insert(name.to_owned(), addresses);
        }
        match judge(&one.asked, &own, reserved) {
            Verdict::Approve => {}
            verdict => return Ok(verdict),
        }
        let (all, reserved) = match now {
            Some(now) => now,
            None => {
                // What this controller's copy says may be older than the controllers that labels have made.
                let controllers = controllers::list(client).await?;
                let controllers = controllers.into_iter().filter_map(|node| Some((node.name, node.address?)));
                let reserved = reserved.and_now(controllers, endpoints::published(client).await?);
                now.insert((requests::addresses(client).await?, reserved))
            }
        };
        Ok(judge(&one.asked, all, reserved))
    }
}

/// The requests that were judged and still wait, by name.
#[derive(Default)]
struct Judged(BTreeMap<String, Known>);

struct Known {
    version: String,
    verdict: Verdict,
    due: Instant,
    pause: Duration,
}

impl Judged {
    /// Forgets those that wait no more.
    fn retain(&mut self, pending: &[Pending]) {
        self.0
            .retain(|name, known| pending.iter().any(|one| one.name == *name && one.resource_version == known.version));
    }

    fn is_due(&self, one: &Pending, now: Instant) -> bool {
        self.0.get(&one.name).is_none_or(|known| known.due <= now)
    }

    /// Notes what was said; tells whether that is news.
    fn note(&mut self, one: &Pending, verdict: &Verdict, now: Instant) -> bool {
        let limit = if matches!(verdict, Verdict::Refuse(_)) { REFUSE_LIMIT } else { WAIT_LIMIT };
        let before = self.0.get(&one.name);
        let pause = before.map_or(AGAIN, |known| (known.pause * 2).min(limit));
        let is_news = before.is_none_or(|known| known.verdict != *verdict);
        let known = Known { version: one.resource_version.clone(), verdict: verdict.clone(), due: now + pause, pause };
        self.0.insert(one.name.clone(), known);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// Somebody who is not a kubelet asks, for ever: that costs no list of all Nodes.
    #[tokio::test]
    async fn what_is_refused_costs_one_look_at_its_node() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let object = match path.as_str() {
                "/apis/certificates.k8s.io/v1/certificatesigningrequests" => json!({"metadata": {}, "items": [{
                    "metadata": {"name": "csr-1", "resourceVersion": "1"},
                    "spec": {"signerName": crate::api::approve::SIGNER, "username": "system:node:w1", "request": ""},
                }]}),
                "/api/v1/nodes/w1" => json!({"metadata": {"name": "w1"}}),
                path => panic!("nobody expected {path}"),
            };
            heard.lock().unwrap().push(path);
            async move { Ok::<_, std::convert::Infallible>(Response::new(Body::from(object.to_string().into_bytes()))) }
        });
        let client = Client::new(service, "default");
        let mut approver = Approver::default();
        for _ in 0..3 {
            approver.turn(&client, &Reserved::default(), drop).await.unwrap();
        }
        let count = |path: &str| asked.lock().unwrap().iter().filter(|asked| *asked == path).count();
        assert_eq!(count("/apis/certificates.k8s.io/v1/certificatesigningrequests"), 3);
        assert_eq!(count("/api/v1/nodes/w1"), 1);
    }

    fn pending(name: &str, version: &str) -> Pending {
        Pending { name: name.into(), resource_version: version.into(), asked: Default::default() }
    }

    /// When a request that gets this verdict each time is judged, in seconds, within an hour.
    fn times(verdict: &Verdict) -> Vec<u64> {
        let (begun, one) = (Instant::now(), pending("a", "1"));
        let mut judged = Judged::default();
        let mut times = Vec::new();
        for second in 0..3600 {
            let now = begun + Duration::from_secs(second);
            if judged.is_due(&one, now) {
                assert_eq!(judged.note(&one, verdict, now), times.is_empty(), "said once");
                times.push(second);
            }
        }
        times
    }

    #[test]
    fn what_is_refused_is_judged_again_in_ever_longer_intervals() {
        let refused = times(&Verdict::Refuse("no".into()));
        assert_eq!(refused[..7], [0, 1, 3, 7, 15, 31, 63]);
        assert!(refused.len() < 18, "{refused:?}");
        let waits = times(&Verdict::Wait("not yet".into()));
        assert!(waits[1..].windows(2).all(|pair| pair[1] - pair[0] <= 60), "{waits:?}");
        assert!(waits.len() < 70, "{waits:?}");
    }

    #[test]
    fn one_that_has_changed_or_gone_is_judged_anew() {
        let now = Instant::now();
        let mut judged = Judged::default();
        let no = Verdict::Refuse("no".into());
        judged.note(&pending("a", "1"), &no, now);
        judged.note(&pending("b", "1"), &no, now);
        assert!(!judged.is_due(&pending("a", "1"), now));
        judged.retain(&[pending("a", "2")]);
        assert!(judged.is_due(&pending("a", "2"), now) && judged.is_due(&pending("b", "1"), now));
        // Another reason is news.
        assert!(judged.note(&pending("a", "2"), &no, now));
        assert!(judged.note(&pending("a", "2"), &Verdict::Refuse("another".into()), now));
    }
}
