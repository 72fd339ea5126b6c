//! The addresses of the `kubernetes` Service. No API server maintains them: they run with the endpoint reconciler
//! `none`. `start` adds a controller's own address. guard keeps it there, and removes it when it leaves the node.
//!
//! The EndpointSlice is authoritative. The legacy Endpoints object follows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::sleep;

use super::FIELD_MANAGER;
use super::verdict::{Verdict, verdict};
use crate::base::error::{Error, Result};
use crate::desired::config::API_PORT;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// By this label a slice belongs to its Service.
const SERVICE: (&str, &str) = ("kubernetes.io/service-name", NAME);
/// Without this label a controller would mirror Endpoints into a second slice.
const SKIP_MIRROR: (&str, &str) = ("endpointslice.kubernetes.io/skip-mirror", "true");
/// How often one looks who was refused because another one wrote at the same moment.
const LOOKS: u32 = 10;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What came of taking an address out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retracted {
    /// It is not among the addresses any more.
    Done,
    /// It stays: no other address would be left.
    Last,
}

/// What the slice shall be, given what was seen of it: with `own` among its ready addresses, and the others as they are.
/// `None` where it is so.
pub fn with(seen: Option<&EndpointSlice>, own: IpAddr) -> Option<EndpointSlice> {
    let mut wanted = seen.cloned().unwrap_or_default();
    name(&mut wanted.metadata, SERVICE);
    wanted.address_type = if own.is_ipv6() { "IPv6" } else { "IPv4" }.into();
    if !ports_are_right(&wanted) {
        wanted.ports = Some(vec![SlicePort {
            name: Some("https".into()),
            port: Some(API_PORT.into()),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]);
    }
    if !addresses(&wanted).contains(&own) {
        drop_address(&mut wanted, own);
        let ready = EndpointConditions { ready: Some(true), ..EndpointConditions::default() };
        wanted.endpoints.push(Endpoint {
            addresses: vec![own.to_string()],
            conditions: Some(ready),
            ..Endpoint::default()
        });
        wanted.endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    (seen != Some(&wanted)).then_some(wanted)
}

/// What the slice shall be without `own`; `None` where no other ready address would be left: the last one is never taken.
pub fn without(seen: &EndpointSlice, own: IpAddr) -> Option<EndpointSlice> {
    let mut wanted = seen.clone();
    drop_address(&mut wanted, own);
    (!addresses(&wanted).is_empty()).then_some(wanted)
}

/// What the legacy object shall be, given what was seen of it, where the slice has these ready addresses; `None` where it
/// is so.
pub fn legacy(seen: Option<&Endpoints>, addresses: &[IpAddr]) -> Option<Endpoints> {
    let mut wanted = seen.cloned().unwrap_or_default();
    name(&mut wanted.metadata, SKIP_MIRROR);
    let subset = |addresses: &[IpAddr]| EndpointSubset {
        addresses: Some(
            addresses.iter().map(|ip| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() }).collect(),
        ),
        ports: Some(vec![EndpointPort {
            name: Some("https".into()),
            port: API_PORT.into(),
            protocol: Some("TCP".into()),
            app_protocol: None,
        }]),
        not_ready_addresses: None,
    };
    let mut sorted = addresses.to_vec();
    // As the API server sorts them: by their text.
    sorted.sort_by_key(ToString::to_string);
    wanted.subsets = Some(vec![subset(&sorted)]);
    (seen != Some(&wanted)).then_some(wanted)
}

fn name(metadata: &mut ObjectMeta, label: (&str, &str)) {
    metadata.name = Some(NAME.into());
    metadata.namespace = Some(NAMESPACE.into());
    metadata.labels.get_or_insert_with(BTreeMap::new).insert(label.0.into(), label.1.into());
}

fn ports_are_right(slice: &EndpointSlice) -> bool {
    slice.ports.as_deref().is_some_and(|ports| {
        ports.len() == 1
            && ports.iter().all(|port| {
                port.name.as_deref() == Some("https")
                    && port.port == Some(API_PORT.into())
                    && port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
            })
    })
}

/// The addresses of a slice that are ready; a condition that is not there means that they are.
fn addresses(slice: &EndpointSlice) -> Vec<IpAddr> {
    let is_ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().is_none_or(|all| all.ready != Some(false));
    let ready = slice.endpoints.iter().filter(is_ready);
    ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect()
}

fn drop_address(slice: &mut EndpointSlice, own: IpAddr) {
    for endpoint in &mut slice.endpoints {
        endpoint.addresses.retain(|address| address.parse() != Ok(own));
    }
    slice.endpoints.retain(|endpoint| !endpoint.addresses.is_empty());
}

/// The ready addresses that are published.
///
/// # Errors
/// The API server's word.
pub async fn published(client: &Client) -> Result<Vec<IpAddr>> {
    let seen = Both::new(client).slices.get_opt(NAME).await;
    let seen = seen.map_err(|error| super::failed("read the addresses of the kubernetes Service", &error))?;
    Ok(seen.iter().flat_map(addresses).collect())
}

/// Puts `own` among the addresses of the `kubernetes` Service, and leaves the others there. Says whether that took a change.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn publish(client: &Client, own: IpAddr) -> Result<bool> {
    Both::new(client).put_in(own).await.map_err(|error| failed(&error))
}

/// Takes `own` out, unless it is the last one. The objects are written as they were read: of two that write at once, one is
/// refused, and looks again.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn retract(client: &Client, own: IpAddr) -> Result<Retracted> {
    let both = Both::new(client);
    let mut looks = 1;
    loop {
        match both.take_out(own).await {
            Err(error) if verdict(&error) == Verdict::Stale && looks < LOOKS => sleep(LOOK_AGAIN).await,
            taken => return taken.map_err(|error| failed(&error)),
        }
        looks += 1;
    }
}

/// The two objects.
struct Both {
    slices: Api<EndpointSlice>,
    endpoints: Api<Endpoints>,
}

impl Both {
    fn new(client: &Client) -> Self {
        let (slices, endpoints) = (client.clone(), client.clone());
        Self { slices: Api::namespaced(slices, NAMESPACE), endpoints: Api::namespaced(endpoints, NAMESPACE) }
    }

    async fn put_in(&self, own: IpAddr) -> kube::Result<bool> {
        let seen = self.slice().await?;
        let wanted = with(seen.as_ref(), own);
        let after: Vec<_> = wanted.as_ref().or(seen.as_ref()).map(addresses).unwrap_or_default();
        let followed = self.follow(&after).await?;
        // Last, for by the slice is told whether all of this is done.
        if let Some(wanted) = &wanted {
            self.write_slice(seen.is_some(), wanted).await?;
        }
        Ok(followed || wanted.is_some())
    }

    async fn take_out(&self, own: IpAddr) -> kube::Result<Retracted> {
        let Some(seen) = self.slice().await? else { return Ok(Retracted::Last) };
        let Some(wanted) = without(&seen, own) else { return Ok(Retracted::Last) };
        if wanted != seen {
            self.write_slice(true, &wanted).await?;
        }
        self.follow(&addresses(&wanted)).await?;
        Ok(Retracted::Done)
    }

    async fn slice(&self) -> kube::Result<Option<EndpointSlice>> {
        self.slices.get_opt(NAME).await
    }

    async fn write_slice(&self, is_there: bool, wanted: &EndpointSlice) -> kube::Result<EndpointSlice> {
        match is_there {
            true => self.slices.replace(NAME, &params(), wanted).await,
            false => self.slices.create(&params(), wanted).await,
        }
    }

    /// Brings the legacy object to these addresses; says whether that took a change.
    async fn follow(&self, addresses: &[IpAddr]) -> kube::Result<bool> {
        let seen = self.endpoints.get_opt(NAME).await?;
        let Some(wanted) = legacy(seen.as_ref(), addresses) else { return Ok(false) };
        match seen {
            Some(_) => self.endpoints.replace(NAME, &params(), &wanted).await?,
            None => self.endpoints.create(&params(), &wanted).await?,
        };
        Ok(true)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

fn failed(error: &kube::Error) -> Error {
    super::failed("publish the address of the kubernetes Service", error)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// As the API server gives it back.
    fn slice(addresses: &[u8]) -> EndpointSlice {
        let mut slice = addresses.iter().fold(None, |seen, last| with(seen.as_ref(), ip(*last)).or(seen)).unwrap();
        slice.metadata.resource_version = Some("7".into());
        slice
    }

    fn edited(addresses: &[u8], edit: impl FnOnce(&mut EndpointSlice)) -> EndpointSlice {
        let mut slice = slice(addresses);
        edit(&mut slice);
        slice
    }

    #[test]
    fn what_is_right_is_left_alone() {
        assert_eq!(with(Some(&slice(&[1])), ip(1)), None);
        assert_eq!(with(Some(&slice(&[1, 2])), ip(2)), None);
        let others = edited(&[1, 2], |slice| {
            slice.endpoints[1].conditions = Some(EndpointConditions { ready: Some(false), ..Default::default() });
            slice.metadata.annotations = Some(BTreeMap::from([("a".into(), "b".into())]));
            slice.ports.as_mut().unwrap()[0].app_protocol = Some("https".into());
        });
        assert_eq!(with(Some(&others), ip(1)), None, "what others say of themselves is theirs");
    }

    #[test]
    fn whatever_is_missing_comes_back_and_the_others_stay() {
        let whole = slice(&[1, 2]);
        for (what, seen) in [
            ("its address", slice(&[2])),
            (
                "its readiness",
                edited(&[1, 2], |slice| {
                    slice.endpoints[0].conditions =
                        Some(EndpointConditions { ready: Some(false), ..Default::default() });
                }),
            ),
            ("its port", edited(&[1, 2], |slice| slice.ports = None)),
            ("another port", edited(&[1, 2], |slice| slice.ports.as_mut().unwrap()[0].port = Some(443))),
            ("the Service's label", edited(&[1, 2], |slice| slice.metadata.labels = None)),
        ] {
            assert_eq!(with(Some(&seen), ip(1)).as_ref(), Some(&whole), "{what}");
        }
        assert_eq!(with(Some(&edited(&[1], |slice| slice.endpoints.clear())), ip(1)), Some(slice(&[1])), "emptied");
        let made = with(None, ip(1)).unwrap();
        assert_eq!((addresses(&made), made.address_type.as_str()), (vec![ip(1)], "IPv4"));
        assert_eq!(with(None, "fd00::1".parse().unwrap()).unwrap().address_type, "IPv6");
    }

    #[test]
    fn the_last_address_is_never_taken() {
        assert_eq!(without(&slice(&[1, 2]), ip(1)).map(|slice| addresses(&slice)), Some(vec![ip(2)]));
        assert_eq!(without(&slice(&[1]), ip(1)), None);
        let unready = edited(&[1, 2], |slice| {
            slice.endpoints[1].conditions = Some(EndpointConditions { ready: Some(false), ..Default::default() });
        });
        assert_eq!(without(&unready, ip(1)), None, "nobody is to ask the other one");
        assert_eq!(without(&slice(&[2]), ip(1)), Some(slice(&[2])), "it was taken out before");
        // By its version one of two that leave at once is refused.
        assert_eq!(without(&slice(&[1, 2]), ip(1)).unwrap().metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn the_legacy_object_follows_the_slice() {
        let made = legacy(None, &[ip(2), ip(1)]).unwrap();
        let there: Vec<_> =
            made.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten()).collect();
        assert_eq!(there.iter().map(|address| &*address.ip).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(legacy(Some(&made), &[ip(1), ip(2)]), None);
        assert_ne!(legacy(Some(&made), &[ip(1)]), None);
        let unlabelled = Endpoints { metadata: ObjectMeta { labels: None, ..made.metadata.clone() }, ..made.clone() };
        assert_eq!(legacy(Some(&unlabelled), &[ip(1), ip(2)]), Some(made));
    }

    /// A cluster whose slice another controller changes before this one's first `refused` writes, to `then` each time; what was
    /// written to it.
    fn contested(refused: usize, then: &[u8]) -> (Client, Arc<Mutex<Vec<Value>>>) {
        let written: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (writes, then) = (written.clone(), then.to_vec());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (writes, then) = (writes.clone(), then.clone());
            async move {
                let is_slice = request.uri().path().contains("endpointslices");
                let is_read = request.method() == "GET";
                let answer = |status, body: Value| {
                    Response::builder().status(status).body(Body::from(body.to_string().into_bytes()))
                };
                if is_read && is_slice {
                    let so_far = writes.lock().unwrap().len();
                    let seen = if so_far == 0 { slice(&[1, 2, 3]) } else { slice(&then) };
                    return answer(StatusCode::OK, serde_json::to_value(seen).unwrap());
                }
                if is_read {
                    let status = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""});
                    return answer(StatusCode::NOT_FOUND, status);
                }
                let body = request.into_body().collect_bytes().await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                if !is_slice {
                    return answer(StatusCode::CREATED, body);
                }
                let mut writes = writes.lock().unwrap();
                writes.push(body.clone());
                if writes.len() <= refused {
                    let message = "Operation cannot be fulfilled on endpointslices.discovery.k8s.io \"kubernetes\": the object has been modified; please apply your changes to the latest version and try again";
                    let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": message});
                    return answer(StatusCode::CONFLICT, status);
                }
                answer(StatusCode::OK, body)
            }
        });
        (Client::new(service, "default"), written)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_because_another_one_wrote_looks_again() {
        let (client, written) = contested(2, &[1, 2]);
        assert_eq!(retract(&client, ip(1)).await.unwrap(), Retracted::Done);
        let left: Vec<EndpointSlice> =
            written.lock().unwrap().iter().map(|body| serde_json::from_value(body.clone()).unwrap()).collect();
        let left: Vec<_> = left.iter().map(addresses).collect();
        assert_eq!(left, [vec![ip(2), ip(3)], vec![ip(2)], vec![ip(2)]], "by what there is now");

        let (client, _) = contested(1, &[1]);
        assert_eq!(retract(&client, ip(1)).await.unwrap(), Retracted::Last, "the others were faster");

        let (client, written) = contested(usize::MAX, &[1, 2]);
        assert!(retract(&client, ip(1)).await.unwrap_err().to_string().contains("the object has been modified"));
        assert_eq!(written.lock().unwrap().len(), LOOKS as usize, "not for ever");
    }
}
