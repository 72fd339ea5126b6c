//! The kubelet of this host: its files, and its unit if systemd runs it.

pub mod package;
pub mod program;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;

use crate::base::error::{Error, Finding, Result};
use crate::base::files::{self, File};
use crate::base::input;
use crate::base::yaml;
use crate::desired::assets::AssetSet;
use crate::desired::config::{API_PORT, Cluster, Controller};
use crate::desired::kubeconfig::{Credentials, KubeConfig};
use crate::desired::kubelet_config;
use crate::desired::node_endpoint;
use crate::desired::pki;
use crate::desired::secrets::{self, Tls};
use crate::node::host::Host;
use crate::node::kubelet_kubeconfig;

/// How long systemd may take for one command.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(60);
/// hoist's own unit of the kubelet.
pub(crate) const UNIT: &str = "/etc/systemd/system/kubelet.service";
/// What is installed instead where there is another unit. It sorts after kubeadm's, which would win otherwise.
pub(crate) const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/20-hoist.conf";
/// How hoist's own unit begins.
pub(crate) const UNIT_BEGINS: &str = "# How a kubelet must be run for hoist";

/// The rendered one, which is the current one until the kubelet renews it.
const RENDERED_CERTIFICATE: &str = "/var/lib/kubelet/pki/kubelet-client-hoist.pem";

/// The bootstrap token in auth/kubeconfig-kubelet.
///
/// # Errors
/// A kubeconfig without one.
pub fn bootstrap_token(assets: &AssetSet) -> Result<String> {
    let path = "auth/kubeconfig-kubelet";
    token_in(path, &assets.text(path)?)?.ok_or_else(|| {
        Error::Input(vec![
            Finding::new(path, "holds no bootstrap token").remedy("remove the file and run `hoist render` again"),
        ])
    })
}

/// The bootstrap token that an asset directory on the disk has already.
///
/// # Errors
/// A kubeconfig that does not parse.
pub fn rendered_token(asset_dir: &Path) -> Result<Option<String>> {
    let path = asset_dir.join("auth/kubeconfig-kubelet");
    match files::read_if_there(&path)? {
        None => Ok(None),
        Some(content) => {
            let place = path.display().to_string();
            token_in(&place, input::text(&place, &content).map_err(|finding| Error::Input(vec![finding]))?)
        }
    }
}

fn token_in(place: &str, text: &str) -> Result<Option<String>> {
    let documents = yaml::documents(place, text).map_err(Error::Input)?;
    Ok(documents
        .first()
        .and_then(|document| document.value.pointer("/users/0/user/token")?.as_str())
        .map(str::to_owned))
}

/// Whether this kubelet has a certificate that is still valid, be it the rendered one or one that it got since.
pub fn has_certificate(host: &Host, now: OffsetDateTime) -> bool {
    let pem = files::read_if_there(&host.kubelet_certificate()).ok().flatten();
    let info = pem.and_then(|pem| pki::inspect(&pem).ok());
    host.kubelet_kubeconfig().exists() && info.is_some_and(|info| now < info.not_after)
}

/// Before the kubelet starts: where its client certificate has ended, it gets that of `tls`, or its own renewed for `lifetime`, where
/// the key of the CA that has issued it is here, as on a controller that a label made; says whether it got one.
///
/// # Errors
/// The system's refusal.
pub fn replace_ended(host: &Host, name: &str, tls: &Tls, lifetime: Duration, now: OffsetDateTime) -> Result<bool> {
    let has_ended = |pem: &[u8]| pki::inspect(pem).is_ok_and(|info| info.not_after <= now);
    let there = files::read_if_there(&host.kubelet_certificate())?.filter(|there| has_ended(there));
    let Some(there) = there else { return Ok(false) };
    let rendered = secrets::of_kubelet(name, tls).ok().filter(|rendered| !has_ended(rendered));
    let renewed = rendered.or_else(|| renewed(&there, name, tls, lifetime, now)).filter(|new| !has_ended(new));
    let Some(renewed) = renewed else { return Ok(false) };
    let path = host.path(RENDERED_CERTIFICATE);
    files::write(&path, &File::private(renewed))?;
    files::link(&host.kubelet_certificate(), &path)
}

/// The kubelet's own file with its certificate renewed, by the cluster's CA.
fn renewed(there: &[u8], name: &str, tls: &Tls, lifetime: Duration, now: OffsetDateTime) -> Option<Vec<u8>> {
    let user = format!("CN=system:node:{name}");
    pki::inspect(there).ok().filter(|info| info.subject.split(", ").any(|part| part == user))?;
    let certificate = pki::certificates_of(there);
    let renewed = pki::reissue(&certificate, tls.get("ca.crt")?, tls.get("ca.key")?, lifetime, now).ok()?;
    let keys = pem::parse_many(there).ok()?.into_iter().filter(|block| block.tag().ends_with("PRIVATE KEY"));
    let keys = pem::encode_many(&keys.collect::<Vec<_>>());
    Some([&renewed[..], keys.as_bytes()].concat())
}

/// What this controller's kubelet needs on the disk, but for its unit.
#[derive(Default)]
pub struct Plan {
    files: Vec<(PathBuf, File)>,
    /// The rendered certificate that the link to the current one shall lead to.
    certificate: Option<PathBuf>,
    /// What an earlier cluster's CA has issued: the kubelet would serve with it until it ends.
    stale: Option<PathBuf>,
}

/// What this controller's kubelet needs on the disk, but for its unit.
///
/// # Errors
/// An asset directory that lacks a file.
pub fn plan(host: &Host, assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> Result<Plan> {
    let tls = assets.tls();
    let ca = tls.get("ca.crt").cloned().unwrap_or_default();
    let env = format!("# Written by hoist start.\nNODE_NAME={}\nNODE_IP={}\n", controller.name, controller.address);
    let mut files = vec![
        (host.path("/etc/kubernetes/pki/ca.crt"), File::public(ca)),
        (host.path("/etc/kubernetes/kubelet.env"), File::public(env)),
        (
            host.path("/var/lib/kubelet/config.yaml"),
            File::private(configuration(assets, &host.inside(host.manifests()))?),
        ),
    ];
    // Where nothing in the cluster signs, the kubelet has none but the rendered ones.
    let wanted = cluster.has_external_ca() || !has_certificate(host, host.world().now());
    let certificate = wanted.then(|| host.path(RENDERED_CERTIFICATE));
    if let Some(path) = &certificate {
        files.push((path.clone(), File::private(secrets::of_kubelet(&controller.name, &tls)?)));
        let wanted = server_of(assets, cluster, controller);
        // One that asks already is led elsewhere when somebody has answered there.
        let server =
            kubelet_kubeconfig::server(host).filter(|there| *there == own_server(controller)).unwrap_or(wanted);
        files.push((host.kubelet_kubeconfig(), File::private(kubeconfig(cluster, controller, &tls, &server))));
    }
    let served = host.kubelet_serving_certificate();
    let pem = files::read_if_there(&served).ok().flatten();
    let is_stale =
        pem.is_some_and(|pem| !pki::is_issued_by(tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default(), &pem));
    Ok(Plan { files, certificate, stale: is_stale.then_some(served) })
}

/// Where the kubelet of `controller` is to ask: at the endpoint of its node, or at the controller's own address. It must not
/// depend on a load balancer.
pub fn server_of(assets: &AssetSet, cluster: &Cluster, controller: &Controller) -> String {
    let endpoint = node_endpoint::address(assets, cluster).map(|address| format!("https://{address}"));
    endpoint.unwrap_or_else(|| own_server(controller))
}

fn own_server(controller: &Controller) -> String {
    format!("https://{}", std::net::SocketAddr::new(controller.address, API_PORT))
}

/// The kubelet's kubeconfig.
fn kubeconfig(cluster: &Cluster, controller: &Controller, tls: &Tls, server: &str) -> String {
    KubeConfig {
        cluster_name: &cluster.cluster_name,
        server,
        ca_pem: tls.get("ca.crt").map(Vec::as_slice).unwrap_or_default(),
        user: &format!("system:node:{}", controller.name),
        credentials: Credentials::ClientCertificateFile(Host::KUBELET_CERTIFICATE),
    }
    .to_yaml()
}

/// Writes the planned files and says whether anything changed.
///
/// # Errors
/// The system's refusal.
pub fn install_files(host: &Host, plan: &Plan) -> Result<bool> {
    for (path, _) in &plan.files {
        files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    }
    files::make_dir(host.manifests(), 0o755)?;
    let written = files::write_all(plan.files.iter().map(|(path, file)| (path.clone(), file)))?;
    let linked = plan.certificate.as_ref().map(|to| files::link(&host.kubelet_certificate(), to)).transpose()?;
    let removed = plan.stale.as_deref().map(files::remove).transpose()?;
    Ok(!written.is_empty() || linked == Some(true) || removed == Some(true))
}

/// Every file that [`install_files`] and [`run_by_systemd`] may make.
pub fn footprint(host: &Host, plan: &Plan) -> Vec<PathBuf> {
    let units = [UNIT, DROP_IN].map(|path| host.path(path));
    // The last one stands for the folder of static pods, which may be new.
    let pods = host.manifests().join("any");
    let files = plan.files.iter().map(|(path, _)| path.clone());
    files.chain([host.kubelet_certificate()]).chain(units).chain([pods]).collect()
}

/// Why systemd could not run the kubelet, if it is known beforehand.
pub async fn unit_problem(host: &Host) -> Option<Finding> {
    if !is_systemd(host) {
        return None;
    }
    if property(host, "LoadState").await.is_ok_and(|state| state == "masked") {
        return Some(
            Finding::new("kubelet.service", "is masked, so systemd will not run a kubelet")
                .remedy("`systemctl unmask kubelet` allows it again"),
        );
    }
    program(host).await.is_none().then(|| {
        Finding::new("kubelet", "there is no such program, neither at the path in kubelet.service nor on PATH")
            .remedy("install the kubelet and a container runtime (Debian packages: kubelet, containerd)")
    })
}

/// Whether systemd had the kubelet's unit enabled and running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitState {
    enabled: bool,
    active: bool,
}

/// The state of the kubelet's unit; `None` where systemd does not run.
///
/// # Errors
/// systemd's refusal.
pub async fn unit_state(host: &Host) -> Result<Option<UnitState>> {
    if !is_systemd(host) {
        return Ok(None);
    }
    let (file, active) = (property(host, "UnitFileState").await?, property(host, "ActiveState").await?);
    Ok(Some(UnitState { enabled: file == "enabled", active: active == "active" }))
}

/// Takes the kubelet's unit back to the state it had; its files are back already.
///
/// # Errors
/// systemd's refusal.
pub async fn restore_unit(host: &Host, before: UnitState) -> Result<()> {
    if !before.enabled {
        // Its unit may be gone: then there is nothing to disable but the link.
        let _ = systemctl(host, &["disable", "kubelet.service"]).await;
    }
    if !before.active {
        let _ = systemctl(host, &["stop", "kubelet.service"]).await;
        let _ = systemctl(host, &["reset-failed", "kubelet.service"]).await;
    }
    systemctl(host, &["daemon-reload"]).await.map(drop)
}

/// The last `count` lines of the kubelet's journal, for whoever has to find out why it does not answer.
pub async fn last_lines(host: &Host, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = ["-u", "kubelet", "-n", &count, "-o", "cat", "--no-pager"];
    let ran = host.world().run("journalctl", &args, Duration::from_secs(5)).await;
    ran.unwrap_or_default().stdout.lines().map(str::to_owned).collect()
}

async fn property(host: &Host, name: &str) -> Result<String> {
    let shown = systemctl(host, &["show", "kubelet.service", "--value", "--property", name]).await?;
    Ok(shown.trim().to_owned())
}

/// The rendered configuration, with the folder of static pods that `start` was told to use.
fn configuration(assets: &AssetSet, manifests: &Path) -> Result<String> {
    let text = assets.text("kubelet/config.yaml")?;
    let mut documents = yaml::documents("kubelet/config.yaml", &text).map_err(Error::Input)?;
    let Some(document) = documents.first_mut() else { return Ok(text) };
    let folder = manifests.to_string_lossy();
    if document.value.get("staticPodPath").and_then(serde_json::Value::as_str) == Some(folder.as_ref()) {
        return Ok(text);
    }
    document.value["staticPodPath"] = folder.as_ref().into();
    Ok(yaml::to_string(&document.value))
}

/// The socket of the container runtime of this host's kubelet.
///
/// # Errors
/// A configuration in the asset directory that does not parse.
pub fn runtime_socket(host: &Host, assets: &AssetSet) -> Result<PathBuf> {
    let path = "kubelet/config.yaml";
    let documents = yaml::documents(path, &assets.text(path)?).map_err(Error::Input)?;
    let value = documents.into_iter().next().map(|document| document.value).unwrap_or_default();
    let endpoint = kubelet_config::runtime_endpoint(&value);
    Ok(host.path(endpoint.strip_prefix("unix://").unwrap_or(endpoint)))
}

/// Whether systemd runs this host.
pub fn is_systemd(host: &Host) -> bool {
    host.path("/run/systemd/system").is_dir()
}

/// Whether a kubelet answers on this machine.
pub async fn answers(host: &Host) -> bool {
    host.world().accepts((Ipv4Addr::LOCALHOST, 10248).into(), Duration::from_secs(1)).await
}

/// Where the kubelet's program is: the one of its unit, or the first on PATH.
pub async fn program(host: &Host) -> Option<PathBuf> {
    let is_there = |program: &Path| host.path(&program.to_string_lossy()).is_file();
    if is_systemd(host) {
        let shown = property(host, "ExecStart").await.unwrap_or_default();
        let path = shown.split_once("path=").and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(path) = path.map(PathBuf::from).filter(|program| is_there(program)) {
            return Some(path);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join("kubelet")).find(|program| is_there(program))
}

/// Installs the kubelet's unit, or a drop-in for the one that is there, and makes systemd run it with the files as they
/// are now. `changed` says that one of them has changed since it was started. Says whether it was started now.
///
/// # Errors
/// A kubelet that cannot be found; systemd's refusal.
pub async fn run_by_systemd(host: &Host, assets: &AssetSet, changed: bool) -> Result<bool> {
    let program = program(host).await.ok_or_else(|| Error::Failed {
        action: "run the kubelet".into(),
        cause: "no kubelet.service and no kubelet on PATH".into(),
        next: Some("install the kubelet (Debian package: kubelet), then run `hoist start` again".into()),
    })?;
    let rendered = assets.text("kubelet/kubelet.service")?.replace("/usr/bin/kubelet", &program.to_string_lossy());
    let folder = host.inside(host.manifests());
    let rendered = rendered.replace("/etc/kubernetes/manifests", &folder.to_string_lossy());
    let ours = files::read_if_there(&host.path(UNIT))?.is_some_and(|text| text.starts_with(UNIT_BEGINS.as_bytes()));
    let has_unit = property(host, "LoadState").await? == "loaded";
    let (path, text) = if has_unit && !ours { (DROP_IN, drop_in(&rendered)) } else { (UNIT, rendered) };
    let path = host.path(path);
    files::make_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
    let unit_changed = files::write(&path, &File::public(text))?;
    if unit_changed {
        systemctl(host, &["daemon-reload"]).await?;
    }
    systemctl(host, &["enable", "kubelet.service"]).await?;
    if unit_changed || changed || property(host, "ActiveState").await? != "active" {
        restart(host).await?;
        return Ok(true);
    }
    Ok(false)
}

/// Starts the kubelet anew by systemd; containers go on.
///
/// # Errors
/// systemd's refusal.
pub async fn restart(host: &Host) -> Result<()> {
    systemctl(host, &["restart", "kubelet.service"]).await.map(drop)
}

/// Stops the kubelet by systemd, until it is started again or the machine is; containers go on.
///
/// # Errors
/// systemd's refusal.
pub async fn stop(host: &Host) -> Result<()> {
    systemctl(host, &["stop", "kubelet.service"]).await.map(drop)
}

/// The [Service] part of the rendered unit that says how the kubelet is run, in place of what another unit says; the one thing of
/// its [Unit] part that no other unit has stands before it.
fn drop_in(unit: &str) -> String {
    let mut text = String::from(
        "# Written by hoist start: how the kubelet is run (see kubelet/kubelet.service of the asset directory).\n[Unit]\nAfter=keepalived.service\n[Service]\n",
    );
    let mut inside = false;
    for line in unit.lines() {
        let directive =
            ["EnvironmentFile=", "Environment=", "ExecStartPre=", "ExecStart=", "ExecStopPost=", "TimeoutStopSec="]
                .into_iter()
                .find(|directive| line.starts_with(directive));
        // What else the other unit sets, and does before and after, is left to it.
        if let Some(directive) = directive.filter(|directive| ["EnvironmentFile=", "ExecStart="].contains(directive)) {
            // An empty assignment resets the list.
            text.push_str(&format!("{directive}\n"));
        }
        if directive.is_some() || inside {
            text.push_str(&format!("{line}\n"));
            inside = line.ends_with('\\');
        }
    }
    text
}

/// Runs systemctl, and returns what it says.
///
/// # Errors
/// systemd's refusal.
pub async fn systemctl(host: &Host, args: &[&str]) -> Result<String> {
    let ran = host.world().run("systemctl", args, SYSTEMCTL_LIMIT).await?;
    if ran.success {
        // It leaves the links that it makes and removes to the next flush: a power cut would undo it.
        if matches!(args, ["enable" | "disable", ..]) {
            files::sync_folders(&host.path("/etc/systemd/system"))?;
        }
        return Ok(ran.stdout);
    }
    Err(Error::Failed {
        action: format!("run `systemctl {}`", args.join(" ")),
        cause: ran.stderr.trim().to_owned(),
        next: Some("`journalctl -u kubelet -n 50` may say why".into()),
    })
}

#[cfg(test)]
mod tests;
