//! `hoist recover`: brings back a controller whose control plane is gone, or a part of it. It does what `start` does,
//! and raises the bridge whatever else serves. If asked to, it first restores etcd's data from a snapshot.
//!
//! ```text
//! source, origin: what is to be restored, read and checked ─► plan: said, and with --dry-run the end
//!   ─► restore: beside ─► others: removed ─► everything stopped ─► exchanged (places) ─► start, as Mode::Recover
//! ```
//! Nothing is changed before the plan has been shown.

mod origin;
mod others;
mod places;
mod restore;
mod source;
mod survivor;
mod unpack;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;

use nix::sys::statvfs::statvfs;

use origin::Origin;
use others::{Removal, Verdict};
use places::{Places, State};
use restore::{Restore, settle};
use source::Source;

use crate::base::error::{Error, Finding, Result};
use crate::base::report::Reporter;
use crate::desired::assets;
use crate::desired::config::{Controller, Etcd};
use crate::node::host::Host;
use crate::node::kubelet;
use crate::node::lock;
use crate::ops::start::{self, Input, Mode};
use crate::plane::kept_copy::Copy;
use crate::plane::remembered::Remembered;

/// The check that asks whether etcd's data is another cluster's: it is what is to be brought back.
const DATA_CHECK: &str = "DirAvailable--var-lib-etcd";
const MIB: u64 = 1 << 20;

/// Which data the cluster has.
#[derive(Debug, Clone)]
pub enum Data {
    /// What etcd has.
    InEtcd,
    /// A file of `etcdctl snapshot save`.
    Snapshot(PathBuf),
    /// A file of `hoist backup`.
    Backup {
        /// The file.
        file: PathBuf,
        /// The file with the secret key that it is encrypted to.
        identity: Option<PathBuf>,
    },
    /// What the etcd of this controller has, where the others are lost: it becomes a cluster by itself.
    Survivor,
}

/// Asks the user whether to go on; an error says that not.
pub type Confirm = fn() -> Result<()>;

/// What `hoist recover` was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which data the cluster has.
    pub data: Data,
    /// Whether it is only said what would be done.
    pub dry_run: bool,
    /// Asks before data is lost; `None` where the user has said yes already.
    pub confirm: Option<Confirm>,
    /// The rest; its mode is [`Mode::Recover`].
    pub start: start::Options,
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was said what would be done.
    Planned,
    /// The cluster serves itself.
    Recovered,
}

/// Recovers this controller. When `stop` completes, with the number of a signal, it ends at the next safe point.
///
/// # Errors
/// See [`Error`]; whatever it is, etcd's data is the old or the new, whole, and an API that was served still is unless
/// that data was being exchanged.
pub async fn recover(
    host: &Host,
    options: &Options,
    reporter: &Reporter,
    stop: impl Future<Output = u8>,
) -> Result<Outcome> {
    if !host.world().is_root() {
        let finding = Finding::new("IsPrivilegedUser", "hoist recover must run as root");
        return Err(Error::Preflight(vec![finding.remedy("run it with sudo")]));
    }
    let place = assets::absolute(&options.start.asset_dir)?;
    let is_forced = matches!(options.data, Data::Survivor);
    let source = Source::read(&options.data)?;
    let origin = Origin::find(host, &source, &place)?;
    let place = place.as_path();
    let mut input = Input::of(origin.assets(), place)?;
    made_by_a_label(host, &source)?.into_iter().for_each(|controller| input.add(controller));
    let input = input;
    // What a backup has may be as old as its data.
    if matches!(source, Source::Etcd) {
        start::goes_on(host, input.assets(), place)?;
    }
    let places = match &input.cluster().etcd {
        Etcd::Local { data_dir, .. } => Some(Places::of(host, data_dir)),
        Etcd::External { .. } => None,
    };
    possible(host, places.as_ref(), &source)?;
    let mut start = options.start.clone();
    start.preflight.skip.push(DATA_CHECK);
    let checked = start::check(host, &input, &start, reporter).await?;
    let tls = input.assets().tls();
    // Cut off before etcd has run on it, a restore need not be done twice.
    let in_place = places.as_ref().is_some_and(|places| match (places.state(), source.sum()) {
        (State::Exchanged(there), Some(sum)) => there == sum,
        (State::Exchanged(_), None) => is_forced,
        _ => false,
    });
    let restores = (source.sum().is_some() || is_forced) && !in_place;
    let observed = match (&places, restores) {
        (Some(_), true) => {
            let others = Remembered::load(host).others;
            others::look(input.cluster(), checked.controller, &tls, others).await
        }
        _ => others::Observed::default(),
    };
    let verdict = match restores {
        true => others::verdict(&observed, is_forced).map_err(|finding| Error::Preflight(vec![finding]))?,
        false => Verdict::Alone,
    };
    if is_forced {
        observed.lost().iter().for_each(|line| reporter.note(line));
    }
    let mut plan = plan(host, &input, place, places.as_ref(), (&source, &origin), &start);
    if let Some(places) = &places {
        let at = usize::from(origin.plan(place).is_some()).min(plan.len());
        let forced = is_forced.then(|| survivor::plan(host, places)).into_iter().flatten();
        plan.splice(at..at, observed.plan(&verdict).into_iter().chain(forced));
    }
    for (number, line) in plan.iter().enumerate() {
        reporter.note(&format!("{}. {line}", number + 1));
    }
    if options.dry_run {
        return Ok(Outcome::Planned);
    }
    if let (true, Some(confirm)) = (is_forced, options.confirm) {
        confirm()?;
    }
    let lock = lock::take(host)?;
    let mut stop = pin!(stop);
    origin.unpack(place)?;
    let saved = match is_forced && restores {
        true => Some(survivor::save(host, input.cluster(), &tls, reporter).await?),
        false => None,
    };
    let source = saved.as_ref().unwrap_or(&source);
    if let Some(places) = &places {
        settle(places, host, reporter)?;
    }
    if let (Some(places), Some(sum), false) = (&places, source.sum(), in_place) {
        let restore = Restore {
            host,
            assets: input.assets(),
            cluster: input.cluster(),
            controller: checked.controller,
            places,
            sum,
            progress_timeout: start.progress_timeout,
            reporter,
        };
        let beside = restore.beside(|to: &mut dyn Write| source.copy(to));
        tokio::select! {
            biased;
            signal = &mut stop => {
                restore.abandon()?;
                let state = "etcd's data is as it was; run the same command again to restore the snapshot".into();
                return Err(Error::Interrupted { signal, state });
            }
            done = beside => done?,
        }
        if let Verdict::RemoveFirst(others) = &verdict {
            let kubeconfig = input.text("auth/kubeconfig")?;
            let removal = Removal {
                host,
                cluster: input.cluster(),
                controller: checked.controller,
                tls: &tls,
                kubeconfig: &kubeconfig,
                observed: &observed,
                reporter,
            };
            tokio::select! {
                biased;
                signal = &mut stop => {
                    let state = "etcd's data is as it was, and others may be members no more; run the same command again".into();
                    return Err(Error::Interrupted { signal, state });
                }
                done = removal.run(others) => done?,
            }
        }
        restore.in_place().await?;
        if is_forced {
            survivor::remove(host)?;
        }
        reporter.note(&format!(
            "the snapshot is restored: if this run is interrupted now, `hoist recover --asset-dir {}` continues",
            place.display()
        ));
    }
    match checked.run(lock, reporter, stop).await {
        Ok(()) => {
            if let Verdict::Lost(lost) = &verdict {
                others::dead(lost).iter().for_each(|line| reporter.note(line));
            }
            Ok(Outcome::Recovered)
        }
        Err(error) if source.sum().is_some() => Err(after_restore(error, place)),
        Err(error) => Err(error),
    }
}

/// The error of a run whose snapshot is restored: the same command would restore it once more.
fn after_restore(mut error: Error, place: &Path) -> Error {
    let text =
        format!("the snapshot is restored; continue without it: `hoist recover --asset-dir {}`", place.display());
    match &mut error {
        Error::Interrupted { state, .. } => *state = format!("{state}\n  {text}"),
        Error::TimedOut { details, .. } => details.push(text),
        _ => {}
    }
    error
}

/// This controller, if a label made it: guard's copy names it, or the backup that is restored.
///
/// # Errors
/// A copy that cannot be read; this machine's addresses.
fn made_by_a_label(host: &Host, source: &Source) -> Result<Option<Controller>> {
    let own = host.world().addresses()?;
    let kept = Copy::load(host)?.and_then(|copy| copy.controller);
    let saved = source.archive().and_then(|(_, contents)| contents.manifest.of());
    Ok(kept.or(saved).filter(|controller| own.contains(&controller.address)))
}

/// Whether it can be done at all.
fn possible(host: &Host, places: Option<&Places>, source: &Source) -> Result<()> {
    let refuse = |place: &str, message: String, remedy: String| {
        Err(Error::Preflight(vec![Finding::new(place, message).remedy(remedy)]))
    };
    let Some(places) = places else {
        return match source.sum() {
            None => Ok(()),
            Some(_) => refuse(
                "cluster.yaml: etcd.external",
                "this etcd belongs to no controller: hoist does not restore its data".into(),
                "restore it with its own tools, and then run `hoist recover` without a snapshot".into(),
            ),
        };
    };
    let data = host.inside(&places.place).display().to_string();
    let Some(length) = source.length() else {
        return match places.state() {
            _ if places.has_data() => Ok(()),
            State::Restored(_) => refuse(
                &data,
                "a restore was interrupted between moving the old data aside and putting the new in place".into(),
                "run it again with the same --etcd-snapshot or --backup".into(),
            ),
            _ => refuse(
                &data,
                "there is no data of etcd, so there is no cluster to bring back".into(),
                "mount its disk, or name a snapshot or a backup (--etcd-snapshot, --backup); `hoist start --new-cluster` begins a new cluster".into(),
            ),
        };
    };
    if !kubelet::is_systemd(host) {
        return refuse(
            "systemd",
            "does not run here, and hoist could not stop the kubelet while it exchanges etcd's data".into(),
            "restore by hand: `etcdutl snapshot restore` into the data directory, with the kubelet stopped; then run `hoist recover` without a snapshot".into(),
        );
    }
    // The copy of the snapshot, what is made of it, and the log that a new member begins with.
    let needed = 2 * length + 128 * MIB;
    let parent = places.work.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    match statvfs(parent).map(|stat| stat.fragment_size() * stat.blocks_free()) {
        Ok(free) if free < needed => refuse(
            &host.inside(parent).display().to_string(),
            format!("{} MB are free, and {} MB are needed beside the existing data", free / MIB, needed / MIB),
            "make room there".into(),
        ),
        _ => Ok(()),
    }
}

/// What is going to be done, as a list.
fn plan(
    host: &Host,
    input: &Input,
    place: &Path,
    places: Option<&Places>,
    (source, origin): (&Source, &Origin<'_>),
    options: &start::Options,
) -> Vec<String> {
    let mut plan = Vec::from_iter(origin.plan(place));
    let name = |path: &Path| host.inside(path).display().to_string();
    if let Some(places) = places {
        if let State::Exchanged(_) = places.state() {
            plan.push("finish the restore that an earlier run has begun: move the data from before aside".into());
        }
        if let Some(what) = source.what() {
            plan.push(format!("restore {what} to {}, by a static pod of etcd's own image", name(&places.work)));
            plan.push(
                "stop the kubelet, etcd and the control plane of this controller: the API is away for a while".into(),
            );
            let aside = places.aside(host.world().now());
            plan.push(match places.has_data() {
                true => format!(
                    "move {} to {}, and what was restored into its place; only the former has what was written after the snapshot",
                    name(&places.place),
                    name(&aside)
                ),
                false => format!("move what was restored to {}", name(&places.place)),
            });
        } else if let State::Restored(_) | State::Unfinished = places.state() {
            plan.push(format!(
                "leave {} alone: a restore that was interrupted has left it, and the data from before is in place",
                name(&places.work)
            ));
        }
    }
    let count = input.manifests().len();
    plan.push("raise the bridge: it serves the API, beside a self-hosted API server that still does".into());
    plan.push(match options.mode {
        Mode::Recover { force_manifests: true } => {
            format!("apply all {count} objects of {}/manifests as they are, over edits in the cluster", place.display())
        }
        _ => format!(
            "apply what is missing or has changed of the {count} objects of {}/manifests; edits in the cluster stay",
            place.display()
        ),
    });
    plan.push("prove that the self-hosted control plane serves, and lower the bridge".into());
    if !input.addons().is_empty() {
        plan.push(format!(
            "apply what is missing or has changed of the {} objects of its add-ons",
            input.addons().len()
        ));
    }
    plan
}

#[cfg(test)]
mod tests;
