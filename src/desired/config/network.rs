//! The pod network, and kube-proxy.

use super::check::Check;
use super::{
    Arg, FlannelBackend, KubeProxy, Network, Plugin, ProxyMode, Version, defaults, flags, networking, raw, syntax,
};

/// A choice, by the name that users write.
type Choices<T, const N: usize> = [(&'static str, T); N];

#[derive(Clone, Copy, PartialEq)]
enum PluginName {
    Flannel,
    None,
}

const PLUGINS: Choices<PluginName, 2> = [("flannel", PluginName::Flannel), ("none", PluginName::None)];
pub(super) const BACKENDS: Choices<FlannelBackend, 2> =
    [("vxlan", FlannelBackend::Vxlan), ("host-gw", FlannelBackend::HostGw)];
pub(super) const MODES: Choices<ProxyMode, 4> = [
    ("auto", ProxyMode::Auto),
    ("nftables", ProxyMode::Nftables),
    ("iptables", ProxyMode::Iptables),
    ("none", ProxyMode::None),
];

/// How users write a choice.
pub(super) fn name<T: Copy + PartialEq, const N: usize>(choices: &Choices<T, N>, chosen: T) -> &'static str {
    choices.iter().find(|(_, choice)| *choice == chosen).map_or("", |(name, _)| name)
}

/// The choice that is written at `path`, or the first.
fn choice<T: Copy, const N: usize>(
    check: &mut Check<'_>,
    path: &str,
    written: Option<&String>,
    choices: &Choices<T, N>,
) -> Option<T> {
    let Some(written) = written else { return choices.first().map(|(_, choice)| *choice) };
    let found = choices.iter().find(|(name, _)| name == written).map(|(_, choice)| *choice);
    if found.is_none() {
        let known: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        check.wrong(path, format!("`{written}` is not known"), format!("known: {}", known.join(", ")));
    }
    found
}

pub(super) fn network(check: &mut Check<'_>, raw: Option<&raw::Network>, kcm_args: &[Arg]) -> Option<Network> {
    let none = raw::Network::default();
    let raw = raw.unwrap_or(&none);
    let plugin = choice(check, "network.plugin", raw.plugin.as_ref(), &PLUGINS)?;
    let flannel = raw.flannel.as_deref();
    let backend = choice(check, "network.flannel.backend", flannel.and_then(|raw| raw.backend.as_ref()), &BACKENDS)?;
    if plugin == PluginName::None && flannel.is_some() {
        check.wrong_key("network.flannel", "the plugin is not flannel", "remove it".to_owned());
    }
    let allocates = networking::allocates(kcm_args);
    if plugin == PluginName::Flannel && !allocates {
        let message =
            "flannel takes each node's subnet from the controller manager, whose allocate-node-cidrs is false";
        let path = if check.has("network.plugin") { "network.plugin" } else { "controllerManager.extraArgs" };
        check.wrong(path, message, "remove that flag, or write network.plugin: none".to_owned());
    }
    let cni_bin_dir = raw.cni_bin_dir.as_deref().unwrap_or(defaults::CNI_BIN_DIR);
    check.value("network.cniBinDir", cni_bin_dir, syntax::unit_path(cni_bin_dir), defaults::CNI_BIN_DIR)?;
    let plugin = match plugin {
        PluginName::Flannel => Plugin::Flannel(backend),
        PluginName::None => Plugin::None,
    };
    Some(Network { plugin, cni_bin_dir: cni_bin_dir.to_owned() })
}

pub(super) fn kube_proxy(
    check: &mut Check<'_>,
    version: Option<Version>,
    raw: Option<&raw::KubeProxy>,
) -> Option<KubeProxy> {
    let mode = choice(check, "kubeProxy.mode", raw.and_then(|raw| raw.mode.as_ref()), &MODES)?;
    let config = raw.and_then(|raw| raw.config.clone()).unwrap_or_default();
    // Without kube-proxy nothing reads them.
    flags::proxy_config(check, "kubeProxy.config", version.filter(|_| mode != ProxyMode::None), &config);
    if mode == ProxyMode::None && !config.is_empty() {
        check.wrong_key("kubeProxy.config", "there is no kube-proxy to configure", "remove it".to_owned());
    }
    Some(KubeProxy { mode, config })
}
