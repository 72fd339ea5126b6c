//! The addresses of the `kubernetes` Service. No API server maintains them: they run with the endpoint reconciler
//! `none`. `start` adds a controller's own address. guard keeps it there, and removes it when it leaves the node.
//!
//! The EndpointSlice is authoritative. The legacy Endpoints object follows it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};

use super::FIELD_MANAGER;
use crate::base::error::{Error, Result};
use crate::desired::config::API_PORT;

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
/// By this label a slice belongs to its Service.
const SERVICE: (&str, &str) = ("kubernetes.io/service-name", NAME);
/// Without this label a controller would mirror Endpoints into a second slice.
const SKIP_MIRROR: (&str, &str) = ("endpointslice.kubernetes.io/skip-mirror", "true");

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
    let both = Both::new(client);
    let seen = both.slice().await?;
    let wanted = with(seen.as_ref(), own);
    let after: Vec<_> = wanted.as_ref().or(seen.as_ref()).map(addresses).unwrap_or_default();
    let followed = both.follow(&after).await?;
    // Last, for by the slice is told whether all of this is done.
    if let Some(wanted) = &wanted {
        both.write_slice(seen.is_some(), wanted).await?;
    }
    Ok(followed || wanted.is_some())
}

/// Takes `own` out, unless it is the last one. Of two controllers that do so at once, one is refused: the slice is written
/// as it was read.
///
/// # Errors
/// The API server's word; calling again goes on.
pub async fn retract(client: &Client, own: IpAddr) -> Result<Retracted> {
    let both = Both::new(client);
    let Some(seen) = both.slice().await? else { return Ok(Retracted::Last) };
    let Some(wanted) = without(&seen, own) else { return Ok(Retracted::Last) };
    if wanted != seen {
        both.write_slice(true, &wanted).await?;
    }
    both.follow(&addresses(&wanted)).await?;
    Ok(Retracted::Done)
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

    async fn slice(&self) -> Result<Option<EndpointSlice>> {
        self.slices.get_opt(NAME).await.map_err(|error| failed(&error))
    }

    async fn write_slice(&self, is_there: bool, wanted: &EndpointSlice) -> Result<()> {
        let written = match is_there {
            true => self.slices.replace(NAME, &params(), wanted).await,
            false => self.slices.create(&params(), wanted).await,
        };
        written.map(drop).map_err(|error| failed(&error))
    }

    /// Brings the legacy object to these addresses; says whether that took a change.
    async fn follow(&self, addresses: &[IpAddr]) -> Result<bool> {
        let seen = self.endpoints.get_opt(NAME).await.map_err(|error| failed(&error))?;
        let Some(wanted) = legacy(seen.as_ref(), addresses) else { return Ok(false) };
        let written = match seen {
            Some(_) => self.endpoints.replace(NAME, &params(), &wanted).await,
            None => self.endpoints.create(&params(), &wanted).await,
        };
        written.map(|_| true).map_err(|error| failed(&error))
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
}
