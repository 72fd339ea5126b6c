//! The front proxy: which aggregated API servers there are, and whom they are told to trust.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{FIELD_MANAGER, failed, self_hosted};
use crate::base::error::Result;
use crate::desired::rotation::front_proxy::CONFIG_MAP;

/// The key of the ConfigMap with the CAs.
const KEY: &str = "requestheader-client-ca-file";
/// The port of a Service where an APIService names none.
const PORT: i32 = 443;
/// The label of an EndpointSlice with the name of its Service.
const OF_SERVICE: &str = "kubernetes.io/service-name";

/// The CAs (PEM) that aggregated API servers are told to trust.
///
/// # Errors
/// The API server's word.
pub async fn told(client: &Client) -> Result<Vec<u8>> {
    Ok(self_hosted::config_map(client, CONFIG_MAP).await?.and_then(|mut data| data.remove(KEY)).unwrap_or_default())
}

/// Has them be told to trust these alone.
///
/// # Errors
/// The API server's word.
pub async fn tell(client: &Client, cas: &[u8]) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"data": {(KEY): String::from_utf8_lossy(cas)}}));
    let written = api.patch(CONFIG_MAP, &params, &patch).await;
    written.map(drop).map_err(|error| failed(format!("write the ConfigMap {CONFIG_MAP}"), &error))
}

/// An address of an aggregated API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregated {
    /// Its Service, as `namespace/name`.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// It says that it is ready: it answers.
    pub is_ready: bool,
}

/// The aggregated API servers. One whose Service has no endpoint is not among them.
///
/// # Errors
/// The API server's word.
pub async fn aggregated(client: &Client) -> Result<Vec<Aggregated>> {
    let list = |error: kube::Error| failed("list aggregated API servers", &error);
    let api_services = Api::<APIService>::all(client.clone()).list(&ListParams::default()).await.map_err(list)?;
    let mut services = BTreeSet::new();
    for service in api_services.items.into_iter().filter_map(|found| found.spec?.service) {
        services.insert((
            service.namespace.unwrap_or_default(),
            service.name.unwrap_or_default(),
            service.port.unwrap_or(PORT),
        ));
    }
    let mut found = Vec::new();
    for (namespace, name, port) in services {
        let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
        let Some(service) = services.get_opt(&name).await.map_err(list)? else { continue };
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
        let of_it = ListParams::default().labels(&format!("{OF_SERVICE}={name}"));
        let slices = slices.list(&of_it).await.map_err(list)?.items;
        let of_it = |(address, is_ready)| Aggregated { service: format!("{namespace}/{name}"), address, is_ready };
        found.extend(addresses(&service, port, &slices).into_iter().map(of_it));
    }
    Ok(found)
}

/// Where `port` of a Service leads, and whether it is ready there.
fn addresses(service: &Service, port: i32, slices: &[EndpointSlice]) -> Vec<(SocketAddr, bool)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let Some(port) = ports.into_iter().find(|own| own.port == port) else { return Vec::new() };
    let wanted = port.name.as_deref().unwrap_or_default();
    let mut found = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter(|own| own.name.as_deref().unwrap_or_default() == wanted);
        let ports: Vec<_> = ports.filter_map(|own| u16::try_from(own.port?).ok()).collect();
        for endpoint in &slice.endpoints {
            let is_ready = endpoint.conditions.as_ref().and_then(|now| now.ready).unwrap_or(true);
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                found.extend(ports.iter().map(|port| (SocketAddr::new(address, *port), is_ready)));
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_the_endpoints_behind_the_port_of_its_name() {
        let service: Service = serde_json::from_value(
            json!({"spec": {"ports": [{"name": "a", "port": 443}, {"name": "b", "port": 8443}]}}),
        )
        .unwrap();
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "ports": [{"name": "b", "port": 1}, {"name": "a", "port": 2}],
            "endpoints": [
                {"addresses": ["192.0.2.1"]},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.3"], "conditions": {"ready": false}},
            ],
        }))
        .unwrap();
        let at = |port| {
            let found = addresses(&service, port, std::slice::from_ref(&slice));
            found.iter().map(|(at, is_ready)| format!("{at} {is_ready}")).collect::<Vec<_>>()
        };
        assert_eq!(at(443), ["192.0.2.1:2 true", "192.0.2.2:2 true", "192.0.2.3:2 false"]);
        assert_eq!(at(8443), ["192.0.2.1:1 true", "192.0.2.2:1 true", "192.0.2.3:1 false"]);
        assert!(at(1).is_empty());
    }
}
