//! Explains why a start makes no progress: the pods that are not ready with their containers' states, last log lines
//! and events, the likely cause, and what to type next. It reads and reports, and changes nothing.
//!
//! ```text
//! gather (API, logs of this host) ─► Trouble ─► causes (a table) ─► Explanation
//! ```

mod causes;
mod gather;
mod logs;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use kube::Client;

use crate::api::observe::{ClusterView, Required};
use crate::base::report::without_numbers;
use crate::desired::assets::Manifest;
use crate::desired::config::API_PORT;
use crate::node::host::Host;

pub use causes::{Cause, Subject};
pub use logs::PodLogs;
pub(crate) use logs::of_pod;

/// How many lines of a log, and how many events, are shown of each pod.
const LINES: usize = 5;
/// How many lines of a log's end are looked through for a cause: earlier ones may be about what has passed.
const LOOKED_THROUGH: usize = 60;
/// How long a line may get, in characters.
const WIDTH: usize = 400;

/// What is fixed in a run, and what commands to type depend on.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// This controller.
    pub host: &'a Host,
    /// Its Node.
    pub node: &'a str,
    /// Its address.
    pub address: IpAddr,
    /// The asset directory.
    pub asset_dir: &'a Path,
    /// What start applies.
    pub manifests: &'a [Manifest],
    /// The administrator's kubeconfig.
    pub kubeconfig: &'a str,
    /// The workloads whose pods must be ready.
    pub required: &'a [Required],
}

/// How the cluster was last seen.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The way to the API, once it has answered.
    pub client: Option<&'a Client>,
    /// What it showed; `None` when it could not be read.
    pub view: Option<&'a ClusterView>,
    /// Whether NODE_IP serves the API.
    pub api_ready: bool,
    /// What is wrong with etcd and with images, as it stands in the table of causes.
    pub found: &'a [String],
}

/// Why it does not get on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    /// For people, each indented by what it belongs to.
    pub lines: Vec<String>,
    /// Who is in trouble, in a few words, with the first cause that was recognised.
    pub cause: Option<(String, Cause)>,
}

impl Explanation {
    /// It in one line, for whoever waits: who, and why.
    pub fn hint(&self) -> Option<String> {
        let (who, cause) = self.cause.as_ref()?;
        Some(format!("{who}: likely cause: {}", cause.cause))
    }
}

/// A pod, or a workload without one, that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Trouble {
    /// `kube-system/kube-apiserver-x on c1`.
    who: String,
    /// What its containers, or its workload, are in.
    states: Vec<String>,
    /// The ends of its logs: what they are of, and the lines.
    logs: Vec<(String, Vec<String>)>,
    /// Events about it, the newest first.
    events: Vec<String>,
    /// Nothing says that it is in trouble: it is told only if no cause was recognised elsewhere.
    maybe: bool,
    /// Further texts that may tell a cause and are not shown.
    hidden: Vec<String>,
}

impl Trouble {
    /// The cause, by what weighs most first: what the pod's state says, what it wrote, what others say of it.
    fn cause(&self, subject: &Subject) -> Option<Cause> {
        // The last words first.
        let logged = self.logs.iter().flat_map(|(_, lines)| lines.iter().rev().take(LOOKED_THROUGH));
        let texts = self.states.iter().chain(logged).chain(&self.events).chain(&self.hidden).map(String::as_str);
        causes::find(texts, subject)
    }

    fn lines(&self, cause: Option<&Cause>) -> Vec<String> {
        let mut told = vec![self.who.clone()];
        told.extend(self.states.iter().map(|state| format!("  {}", shortened(state, WIDTH))));
        for (title, lines) in &self.logs {
            let shown = telling(lines, cause.map(|cause| cause.shown_by.as_str()));
            if !shown.is_empty() {
                told.push(format!("  {title}:"));
                told.extend(shown.iter().map(|line| format!("    {}", shortened(line, WIDTH))));
            }
        }
        if !self.events.is_empty() {
            told.push("  its events, the newest first:".into());
            told.extend(self.events.iter().map(|event| format!("    {}", shortened(event, WIDTH))));
        }
        if let Some(cause) = cause {
            told.push(format!("  likely cause: {}", cause.cause));
        }
        told
    }
}

/// Explains why this cluster does not get on, as far as it can be seen from here. It takes some seconds at most.
pub async fn explain(context: &Context<'_>, seen: Seen<'_>, pod_logs: &PodLogs) -> Explanation {
    let mut found = gather::of_this_machine(context, seen.found);
    if let (Some(client), Some(view)) = (seen.client, seen.view) {
        found.extend(gather::workloads(context, client, view, pod_logs).await);
    }
    if !seen.api_ready {
        found.extend(gather::static_pods(context, pod_logs).await);
    }
    let mut explanation = Explanation::default();
    let found: Vec<_> = found
        .into_iter()
        .map(|(trouble, subject)| {
            let cause = trouble.cause(&subject);
            (trouble, cause)
        })
        .collect();
    let is_recognised = found.iter().any(|(_, cause)| cause.is_some());
    for (trouble, cause) in found {
        if trouble.maybe && cause.is_none() && is_recognised {
            continue;
        }
        explanation.lines.extend(trouble.lines(cause.as_ref()));
        if let (None, Some(cause)) = (&explanation.cause, cause) {
            explanation.cause = Some((trouble.who, cause));
        }
    }
    explanation
}

/// The pods whose logs are worth keeping, by namespace and name: those of the required workloads that matter on `node`.
pub fn pods_to_keep<'a>(
    required: &'a [Required],
    node: &'a str,
    view: Option<&'a ClusterView>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of_view = move |view: &'a ClusterView| {
        required.iter().flat_map(move |workload| {
            view.pods_of(workload, node).map(|pod| (workload.namespace.as_str(), pod.name.as_str()))
        })
    };
    view.into_iter().flat_map(of_view)
}

impl Context<'_> {
    /// kubectl as the administrator has to call it here: a control plane endpoint may lead elsewhere, or nowhere.
    fn kubectl(&self) -> String {
        let kubeconfig = self.asset_dir.join("auth/kubeconfig");
        let server = format!("https://{}", SocketAddr::new(self.address, API_PORT));
        let is_default = self
            .kubeconfig
            .lines()
            .any(|line| line.trim().strip_prefix("server:").is_some_and(|url| url.trim().trim_matches('"') == server));
        let server = if is_default { String::new() } else { format!(" --server {server}") };
        format!("kubectl --kubeconfig {}{server}", kubeconfig.display())
    }

    /// What the table of causes says of the workload `kind`/`required`, and of its pod.
    fn subject(&self, required: &Required, kind: &str, pod: &str, container: &str) -> Subject {
        let Required { namespace, name } = required;
        let kubectl = self.kubectl();
        let workload = format!("{}/{name}", kind.to_lowercase());
        let file = self.file(kind, required);
        let command = format!("`{kubectl} -n {namespace} edit {workload}`");
        let edit = match &file {
            Some(file) => format!("{command}, or in {file}"),
            None => command,
        };
        // A component's Secret has its name.
        let renew_secret = match self.file("Secret", required) {
            Some(file) => {
                let dir = self.asset_dir.display();
                let path = file.strip_prefix(&format!("{dir}/")).unwrap_or(&file);
                format!(
                    "make the Secret as it was rendered: `hoist render --config {dir}/cluster.yaml --asset-dir {dir} --replace {path}`, then `{kubectl} apply --server-side --force-conflicts -f {file}`"
                )
            }
            None => format!("correct the Secret that it mounts: `{kubectl} -n {namespace} get secrets`"),
        };
        Subject {
            container: container.into(),
            pod: pod.into(),
            namespace: namespace.clone(),
            workload,
            node: self.node.into(),
            kubectl,
            edit,
            renew_secret,
        }
    }

    /// The same of a static pod, whose manifest hoist renders.
    fn static_subject(&self, pod: &str, container: &str) -> Subject {
        let (dir, kubectl) = (self.asset_dir.display(), self.kubectl());
        let edit = format!(
            "in cluster.yaml, then `hoist render --config cluster.yaml --asset-dir {dir}` (what runs here is {dir}/bootstrap-manifests/{pod}.yaml)"
        );
        let renew_secret = format!(
            "`hoist render --config cluster.yaml --asset-dir {dir}` issues what is missing or has expired in {dir}/tls"
        );
        Subject {
            container: container.into(),
            pod: format!("{pod}-{}", self.node),
            namespace: "kube-system".into(),
            workload: format!("the static pod {pod}"),
            node: self.node.into(),
            kubectl,
            edit,
            renew_secret,
        }
    }

    /// The file that the object is applied from.
    fn file(&self, kind: &str, required: &Required) -> Option<String> {
        let is = |manifest: &&Manifest, pointer: &str, value: &str| {
            manifest.object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or("default") == value
        };
        let found = self.manifests.iter().find(|manifest| {
            is(manifest, "/kind", kind)
                && is(manifest, "/metadata/name", &required.name)
                && is(manifest, "/metadata/namespace", &required.namespace)
        })?;
        Some(self.asset_dir.join(&found.path).display().to_string())
    }
}

/// The last lines that say something of their own, and the one that told the cause, wherever it stands.
fn telling<'a>(lines: &'a [String], cause: Option<&str>) -> Vec<&'a str> {
    let mut shown: Vec<&str> = Vec::new();
    for line in lines.iter().rev().filter(|line| !line.trim().is_empty()) {
        if shown.len() < LINES && !shown.iter().any(|other| without_numbers(other) == without_numbers(line)) {
            shown.push(line);
        }
    }
    if let Some(cause) = lines.iter().rev().find(|line| Some(line.as_str()) == cause)
        && !shown.iter().any(|line| without_numbers(line) == without_numbers(cause))
    {
        shown.push(cause);
    }
    shown.reverse();
    shown
}

/// The beginning of a text, in one line.
fn shortened(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(width) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests;
