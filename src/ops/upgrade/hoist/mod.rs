//! Another hoist on a node whose cluster serves: its binary, its guard, its endpoint. Pods of others are not touched, and no
//! connection to the endpoint is refused.
//!
//! ```text
//! loop { observe ─► decide ─► act }
//! ```
//!
//! The new hoist is the program that runs this. The binary of before waits beside the new one: it leads back by the same command.

mod decide;
mod look;

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::base::error::{Error, Finding, Result};
use crate::base::files;
use crate::base::report::Reporter;
use crate::base::yaml;
use crate::desired::node_endpoint;
use crate::node::host::Host;
use crate::node::images;
use crate::node::lock::{self, Exchange};
use crate::node::own_unit;
use crate::plane::bridge::GUARD;

use super::only_root;
use decide::{Act, Beside, Decision, decide};
use look::{BESIDE, CONTAINERS, MARK, Scene};

/// Between two rounds.
const INTERVAL: Duration = Duration::from_millis(250);
const STEP: &str = "hoist";
/// The folder of hoist's binary, for messages.
const BINARY_FOLDER: &str = "/var/lib/hoist/bin";
/// The program of before, beside the new one.
const PREVIOUS: &str = "hoist.previous";

/// What `hoist upgrade hoist` was told.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The new hoist's program.
    pub program: &'a Path,
    /// The image that has it, for pods that run an image.
    pub image: Option<&'a str>,
    /// How long a pod may take to run it.
    pub timeout: Duration,
    /// Something of hoist's should be on this node.
    pub is_expected: bool,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The parts that were exchanged, as they are called.
    pub exchanged: Vec<&'static str>,
}

/// Brings the hoist that runs this to all that runs on this node. When `stop` completes, with the number of a signal, it ends between
/// two acts.
///
/// # Errors
/// Another one at work on this node; one on which nothing of hoist's is; an image that is missing; a pod that does not come to run the new hoist. Running it again goes on.
pub async fn run(
    host: &Host,
    options: &Options<'_>,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<Done> {
    only_root(host, "hoist upgrade hoist")?;
    let _exclusive = lock::exclusively(host, Exchange::Hoist)?;
    let mut scene = Scene::look(host, options.program, options.image).await?;
    if !CONTAINERS.iter().any(|(name, ..)| scene.pods.has_own(name)) && !host.binary().is_file() {
        if !options.is_expected {
            reporter.note("nothing of hoist's runs on this node");
            return Ok(Done::default());
        }
        let finding = Finding::new(host.manifests().display().to_string(), "has no pod of hoist's");
        return Err(Error::Input(vec![
            finding.remedy("run it on a node that has a guard or an endpoint, or give --pod-manifest-path"),
        ]));
    }
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        biased;
        signal = &mut stop => Err(Error::Interrupted {
            signal,
            state: "guard and the endpoint go on with what they run; the same command continues".into(),
        }),
        ended = go(&mut scene, options, reporter) => ended,
    }
    .inspect(|_| boots_with_another(&scene, reporter))
}

/// Says so where hoist.service would bring another hoist at the next boot.
fn boots_with_another(scene: &Scene<'_>, reporter: &Reporter) {
    let Some(program) = own_unit::program(scene.host) else { return };
    let path = scene.host.path(&program);
    if path.is_file() && !files::have_same_content(&path, &scene.program).unwrap_or(true) {
        reporter.note(&format!(
            "hoist.service runs {program}, which is another hoist: at the next boot it takes the place of this one. Put this one there, too"
        ));
    }
}

async fn go(scene: &mut Scene<'_>, options: &Options<'_>, reporter: &Reporter) -> Result<Done> {
    reporter.start(STEP, "all of hoist on this node is this one");
    let mut done = Done::default();
    let mut since = Instant::now();
    loop {
        let mut seen = scene.observe()?;
        (seen.waited, seen.limit) = (since.elapsed(), options.timeout);
        match decide(&seen) {
            Decision::Done => {
                reporter.done(STEP);
                return Ok(done);
            }
            Decision::Wait(what) => reporter.waiting(STEP, what),
            Decision::GiveUp(what) => {
                // One that never listened is of no use; one that does may be all that listens.
                if seen.beside == Beside::Written {
                    scene.pods.remove(BESIDE)?;
                }
                reporter.fail(STEP, what);
                return Err(gave_up(scene, what, options.timeout));
            }
            Decision::Do(act) => {
                let _lock = lock::take(scene.host)?;
                perform(scene, act)?;
                done.exchanged.extend(match act {
                    Act::PutBinary => Some("binary"),
                    Act::WriteGuard => Some("guard"),
                    Act::WriteEndpoint => Some("endpoint"),
                    Act::PutBeside | Act::RemoveBeside => None,
                });
                since = Instant::now();
            }
        }
        sleep(INTERVAL).await;
    }
}

fn perform(scene: &Scene<'_>, act: Act) -> Result<()> {
    match act {
        Act::PutBinary => {
            let binary = scene.host.binary();
            let folder = binary.parent().unwrap_or(Path::new("/"));
            files::make_dir(folder, 0o755)?;
            let previous = folder.join(PREVIOUS);
            // The way back: a copy of the one would overwrite the other.
            let is_way_back = files::have_same_content(&previous, &scene.program).unwrap_or(false);
            if is_way_back && binary.is_file() && files::exchange(&binary, &previous)? {
                return Ok(());
            }
            if binary.is_file() {
                files::copy_program(&binary, &previous)?;
            }
            files::copy_program(&scene.program, &binary).map(drop)
        }
        Act::WriteGuard => write(scene, GUARD),
        Act::WriteEndpoint => write(scene, node_endpoint::NAME),
        Act::PutBeside => {
            let text = text_of(scene, node_endpoint::NAME)?;
            scene.pods.install(BESIDE, &beside(&text)?).map(drop)
        }
        Act::RemoveBeside => scene.pods.remove(BESIDE).map(drop),
    }
}

/// Writes the manifest `name` for the new hoist.
fn write(scene: &Scene<'_>, name: &str) -> Result<()> {
    let text = text_of(scene, name)?;
    match scene.mounts(name) {
        true => scene.pods.install_with(name, &text, &scene.sum)?,
        false => scene.pods.install_lasting(name, &text)?,
    };
    if scene.is_written(name) {
        return Ok(());
    }
    let path = scene.host.manifests().join(name).display().to_string();
    let finding = Finding::new(path, "is not laid out as hoist writes it, so that it cannot be brought to this hoist");
    Err(Error::Input(vec![finding.remedy(
        "`hoist start` writes that of a controller anew once it is out of the folder; a worker's is in join-assets",
    )]))
}

/// The manifest `name`, with the new hoist's image where it runs one.
fn text_of(scene: &Scene<'_>, name: &str) -> Result<String> {
    let path = scene.host.manifests().join(name);
    let text = scene.pods.read(name).ok_or_else(|| Error::failed(format!("read {}", path.display()), "it is gone"))?;
    let container = CONTAINERS.iter().find(|(there, ..)| *there == name).map(|(_, container, _)| *container);
    Ok(match (container, scene.image) {
        (Some(container), Some(image)) if !scene.mounts(name) => images::with_image(&text, container, image),
        _ => text,
    })
}

/// The second endpoint of an endpoint: the same in all but its name, and a mark for its process.
fn beside(text: &str) -> Result<String> {
    let document = yaml::documents(node_endpoint::NAME, text).map_err(Error::Input)?.into_iter().next();
    let mut pod = document.map(|document| document.value).unwrap_or_default();
    pod["metadata"]["name"] = BESIDE.trim_end_matches(".yaml").into();
    pod["metadata"].as_object_mut().map(|metadata| metadata.remove("uid"));
    let mark = json!({"name": MARK, "value": "1"});
    match &mut pod["spec"]["containers"][0]["env"] {
        Value::Array(variables) => variables.push(mark),
        none => *none = json!([mark]),
    }
    Ok(yaml::to_string(&pod))
}

fn gave_up(scene: &Scene<'_>, what: &str, limit: Duration) -> Error {
    let runs_image = CONTAINERS.iter().any(|(name, ..)| scene.pods.has_own(name) && !scene.mounts(name));
    let back = match runs_image {
        true => "An image of a tag that was there before is not taken again: the new hoist's needs a tag of its own. The same command by the \
                 hoist of before, with --image of its image, leads back"
            .to_owned(),
        false => format!("`{BINARY_FOLDER}/{PREVIOUS} upgrade hoist` leads back"),
    };
    Error::Failed {
        action: "bring this hoist to all of this node".into(),
        cause: format!("waited {} s for {what}", limit.as_secs()),
        next: Some(format!(
            "`crictl ps -a` and `journalctl -u kubelet -n 50` may say why; the same command goes on. {back}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::host::BINARY;
    use crate::node::static_pods::StaticPods;
    use crate::node::system;

    #[test]
    fn the_second_endpoint_is_another_pod_that_does_the_same() {
        let text = include_str!("../../../../tests/golden/full/bootstrap-manifests/hoist-endpoint.yaml");
        let read = |text: &str| yaml::documents("", text).unwrap().remove(0).value;
        let (first, mut second) = (read(text), read(&beside(text).unwrap()));
        assert_eq!(second["metadata"]["name"], "hoist-endpoint-beside");
        assert_eq!(second["metadata"]["labels"], first["metadata"]["labels"], "hoist's, which reset takes away");
        let env = second["spec"]["containers"][0]["env"].as_array_mut().unwrap();
        assert_eq!(env.pop().unwrap()["name"], MARK);
        second["metadata"]["name"] = first["metadata"]["name"].clone();
        assert_eq!(second, first);
    }

    /// A machine whose guard runs the binary of the disk, with this manifest.
    fn machine(root: &Path, guard: &str) -> Host {
        let host = system::host(root, Path::new("/etc/kubernetes/manifests"));
        StaticPods::new(host.manifests()).install(GUARD, guard).unwrap();
        std::fs::create_dir_all(host.binary().parent().unwrap()).unwrap();
        std::fs::write(host.binary(), "old").unwrap();
        host
    }

    fn guard() -> String {
        let text = include_str!("../../../../tests/golden/minimal/bootstrap-manifests/hoist-guard.yaml");
        assert!(text.contains(BINARY));
        text.to_owned()
    }

    #[tokio::test]
    async fn a_manifest_that_cannot_take_the_mark_ends_it_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        std::fs::write(&new, "new").unwrap();
        for (text, is_taken) in
            [(guard(), true), (guard().replace("metadata:\n  name", "metadata:\n  uid: mine\n  name"), false)]
        {
            let host = machine(dir.path(), &text);
            let scene = Scene::look(&host, &new, None).await.unwrap();
            let written = perform(&scene, Act::WriteGuard);
            assert_eq!(scene.is_written(GUARD), is_taken);
            match is_taken {
                true => written.unwrap(),
                false => assert!(written.unwrap_err().to_string().contains("hoist-guard.yaml")),
            }
        }
    }

    #[tokio::test]
    async fn the_way_back_loses_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(dir.path(), &guard());
        let (binary, previous) = (host.binary(), host.binary().with_file_name(PREVIOUS));
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let new = dir.path().join("new");
        std::fs::write(&new, "new").unwrap();
        perform(&Scene::look(&host, &new, None).await.unwrap(), Act::PutBinary).unwrap();
        assert_eq!((read(&binary), read(&previous)), ("new".into(), "old".into()));
        // By the program that waits there itself.
        perform(&Scene::look(&host, &previous, None).await.unwrap(), Act::PutBinary).unwrap();
        assert_eq!((read(&binary), read(&previous)), ("old".into(), "new".into()));
    }
}
