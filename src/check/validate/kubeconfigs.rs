//! kubeconfigs: the admin's, a new kubelet's, and those that the controllers are given.

use super::faults::{AGAIN, Faults, field};
use super::files::{Resolved, Source};
use super::inventory::{Inventory, Object};
use super::presented::{Presented, at};
use crate::base::error::Finding;
use crate::base::yaml::{self, Position};
use crate::desired::config::{API_PORT, Controller};
use crate::desired::known_flags::Program::{self, ApiServer, ControllerManager, Scheduler};
use crate::desired::pki::verify;

const CLUSTER: &str = "/clusters/0/cluster";
const USER: &str = "/users/0/user";
const SERVER: &str = "clusters[0].cluster.server";
/// What names files of a client's.
const CERTIFICATE: &str = "client-certificate";
const KEY: &str = "client-key";
const FLAGS: [&str; 3] = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];

/// Those that are files of their own, with the leaf in tls/ that each one's user is to have.
const FILES: [(&str, Option<&str>); 2] = [("auth/kubeconfig", Some("admin")), ("auth/kubeconfig-kubelet", None)];

const ANEW: &str = "remove the file and run `hoist render` again";

/// What a kubeconfig says.
pub(super) struct KubeConfig {
    /// The leaf in tls/ that its user is to have; a kubelet has a token.
    user: Option<&'static str>,
    place: String,
    /// Where it stands, for one that is a part of a file.
    within: Option<Position>,
    /// The file itself, for one that is a file of its own.
    pub object: Option<Object>,
    server: Option<String>,
    token: Option<String>,
    pub ca: Option<Vec<u8>>,
    pub certificate: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
    /// The files of the two, for one that names them.
    files: [Option<Source>; 2],
}

impl KubeConfig {
    fn new(object: Object, user: Option<&'static str>) -> Self {
        let value = object.value();
        Self {
            user,
            place: object.place().to_owned(),
            within: None,
            server: at(value, CLUSTER, "server").map(str::to_owned),
            token: at(value, USER, "token").map(str::to_owned),
            ca: field(value, &format!("{CLUSTER}/certificate-authority-data")),
            certificate: field(value, &format!("{USER}/client-certificate-data")),
            key: field(value, &format!("{USER}/client-key-data")),
            files: [None, None],
            object: Some(object),
        }
    }

    pub fn ca_path(&self) -> String {
        "clusters[0].cluster.certificate-authority-data".to_owned()
    }

    pub fn certificate_path(&self) -> String {
        "users[0].user.client-certificate-data".to_owned()
    }

    fn position(&self, path: &str) -> Option<Position> {
        self.within.or_else(|| self.object.as_ref()?.position(path))
    }

    fn finding(&self, path: &str, message: impl AsRef<str>) -> Finding {
        let name = if self.within.is_some() { "kubeconfig" } else { path };
        Finding::new(&self.place, format!("{name}: {}", message.as_ref())).at(self.position(path))
    }

    fn source(&self, inventory: &Inventory<'_>, bytes: &[u8], path: &str, controller: &Controller) -> Source {
        inventory.source(bytes, controller, &self.place, self.position(path))
    }
}

/// The kubeconfigs that are files of their own.
pub(super) fn all(inventory: &Inventory<'_>) -> Vec<KubeConfig> {
    let read = |(path, user): (&str, Option<&'static str>)| {
        let object = Object::of_file(inventory.dir, path, &inventory.assets.text(path).ok()?)?;
        Some(KubeConfig::new(object, user))
    };
    FILES.into_iter().filter_map(read).collect()
}

/// Those that the controllers' flags name; each content once.
fn mounted(inventory: &Inventory<'_>, presented: &Presented<'_>, faults: &mut Faults) -> Vec<KubeConfig> {
    let mut seen: Vec<(Vec<u8>, Program)> = Vec::new();
    let mut found = Vec::new();
    let Some(controller) = inventory.cluster.controllers.first() else { return found };
    for (program, user) in [(ControllerManager, "kube-controller-manager"), (Scheduler, "kube-scheduler")] {
        let of = presented.running.iter().filter(|run| run.program == program);
        let named = of.flat_map(|run| FLAGS.iter().map(move |flag| (run, flag)));
        for (run, source) in named.filter_map(|(run, flag)| Some((run, inventory.content(run, flag, controller)?))) {
            let key = (source.bytes.clone(), program);
            if seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let text = String::from_utf8_lossy(&source.bytes);
            let Some(object) = Object::of_file(std::path::Path::new(""), &source.place, &text) else {
                faults.add("unreadable", source.finding("is not a kubeconfig").remedy("run `hoist render` again"));
                continue;
            };
            let mut file = KubeConfig::new(object, Some(user));
            let paths = [CERTIFICATE, KEY]
                .map(|key| file.object.as_ref().and_then(|object| at(object.value(), USER, key)).map(str::to_owned));
            (file.place, file.within, file.object) = (source.place, source.position.or(Some((1, 1))), None);
            for (i, (path, name)) in paths.into_iter().zip([CERTIFICATE, KEY]).enumerate() {
                let Some(path) = path else { continue };
                match inventory.resolve(run, &path, controller) {
                    Resolved::Content(source) => file.files[i] = Some(source),
                    Resolved::Missing(why) => {
                        let message = format!("names {path}: {why}");
                        let finding = file.finding(&format!("users[0].user.{name}"), message);
                        faults.add("reference", finding.remedy("run `hoist render` again"));
                    }
                    Resolved::Elsewhere => {}
                }
            }
            let bytes = |source: &Option<Source>| source.as_ref().map(|source| source.bytes.clone());
            if let [Some(_), _] = &file.files {
                (file.certificate, file.key) = (bytes(&file.files[0]), bytes(&file.files[1]));
            }
            found.push(file);
        }
    }
    found
}

pub(super) fn check(inventory: &Inventory<'_>, presented: &Presented<'_>, faults: &mut Faults) {
    for (path, _) in FILES {
        let Ok(text) = inventory.assets.text(path) else { continue };
        match yaml::documents(&inventory.place(path), &text) {
            Ok(documents) if documents.is_empty() => {
                let finding = Finding::new(inventory.place(path), "is not a kubeconfig: it is empty");
                faults.add("unreadable", finding.remedy(ANEW));
            }
            Ok(_) => {}
            Err(found) => found.into_iter().for_each(|finding| faults.add("unreadable", finding.remedy(ANEW))),
        }
    }
    let all: Vec<_> = all(inventory).into_iter().chain(mounted(inventory, presented, faults)).collect();
    for file in &all {
        server(inventory, presented, file, faults);
        authority(inventory, presented, file, faults);
        match file.user {
            Some(user) => certificate(inventory, presented, file, user, faults),
            None => token(file, faults),
        }
    }
}

/// The API server's certificate has the name that clients of this kubeconfig call it by.
fn server(inventory: &Inventory<'_>, presented: &Presented<'_>, file: &KubeConfig, faults: &mut Faults) {
    let Some(url) = &file.server else {
        faults.add("server", file.finding(SERVER, "it is required").remedy("run `hoist render` again"));
        return;
    };
    let endpoint = url.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or(rest));
    let Some((host, port)) = endpoint.map(split) else {
        faults.add(
            "server",
            file.finding(SERVER, format!("{url} is not an https URL")).remedy("write https://HOST:PORT"),
        );
        return;
    };
    for cert in presented.certs.iter().filter(|cert| cert.flag == "tls-cert-file") {
        if !verify::has_name(&cert.chain[0].info, host) {
            let message = format!("{} lacks the name {host}, so clients would refuse it", cert.source.place);
            let remedy = "use a name that it has, or add this one to apiServer.certSANs and render again";
            faults.add("server", file.finding(SERVER, message).remedy(remedy));
        }
    }
    let is_controller = |controller: &Controller| controller.address.to_string() == host;
    let is_direct =
        host == inventory.cluster.loopback().to_string() || inventory.cluster.controllers.iter().any(is_controller);
    // The bridge's controllers talk to the bridge.
    let ports = [API_PORT, crate::desired::secrets::BRIDGE_PORT];
    if is_direct && !ports.contains(&port) {
        let message = format!("no API server listens on port {port} of {host}");
        faults.add("server", file.finding(SERVER, message).remedy(format!("write https://{host}:{API_PORT}")));
    }
}

fn split(endpoint: &str) -> (&str, u16) {
    let (host, port) = match endpoint.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(0)),
        _ => (endpoint, 443),
    };
    (host.trim_matches(['[', ']']), port)
}

/// Who uses it trusts the API server.
fn authority(inventory: &Inventory<'_>, presented: &Presented<'_>, file: &KubeConfig, faults: &mut Faults) {
    let (Some(bytes), Some(controller)) = (&file.ca, inventory.cluster.controllers.first()) else { return };
    let path = file.ca_path();
    let source = file.source(inventory, bytes, &path, controller);
    let Some(roots) = faults.read(&source) else { return };
    for cert in presented.certs.iter().filter(|cert| cert.flag == "tls-cert-file") {
        if !verify::is_trusted(&cert.chain, &roots) && !faults.has("chain", &cert.source.place) {
            let message = format!("did not issue {}, so its users would not trust the API server", cert.source.place);
            faults.add("ca", file.finding(&path, message).remedy("run `hoist render` again"));
        }
    }
}

/// The API server trusts who uses it, and takes it for whom it should.
fn certificate(
    inventory: &Inventory<'_>,
    presented: &Presented<'_>,
    file: &KubeConfig,
    user: &str,
    faults: &mut Faults,
) {
    let (Some(bytes), Some(controller)) = (&file.certificate, inventory.cluster.controllers.first()) else { return };
    let path = file.certificate_path();
    let held = |bytes: &[u8], path: &str| file.source(inventory, bytes, path, controller);
    let [named, named_key] = file.files.clone();
    let source = named.unwrap_or_else(|| held(bytes, &path));
    let Some(chain) = faults.read(&source) else { return };
    if let Some(key) = &file.key {
        let key = named_key.unwrap_or_else(|| held(key, "users[0].user.client-key-data"));
        faults.key(&chain[0], &source, &key);
    }
    if source.tls.as_deref() != Some(&format!("{user}.crt"))
        && let Some(needed) = verify::needed(inventory.cluster).into_iter().find(|needed| needed.stem == user)
    {
        faults.purpose(&chain[0], &needed, |message| file.finding(&path, message));
    }
    for ca in presented.contents(inventory, ApiServer, "client-ca-file", controller) {
        let trusted = faults.read(&ca).is_none_or(|roots| verify::is_trusted(&chain, &roots));
        if !trusted {
            let at = source.position.or(Some((chain[0].line, 1)));
            faults.add("chain", source.finding(format!("was not issued by {}", ca.place)).at(at).remedy(AGAIN));
        }
    }
}

/// A kubelet's token has the form that the API server asks for.
fn token(file: &KubeConfig, faults: &mut Faults) {
    let is_part =
        |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let token = file.token.as_deref().unwrap_or_default();
    if !token.split_once('.').is_some_and(|(id, secret)| is_part(id, 6) && is_part(secret, 16)) {
        let finding =
            file.finding("users[0].user.token", "is not a bootstrap token, 6 and 16 lower-case letters and digits");
        faults.add("token", finding.remedy(ANEW));
    }
}
