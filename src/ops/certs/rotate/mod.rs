//! `hoist certs rotate`: keys that are changed while everything serves.
//!
//! ```text
//! scene.rs: guard's Secret, leases, metrics, rollouts, etcd ─► Observed ─► Rotation, decide (desired, pure) ─► acts.rs
//! ```
//! There is no state but the keys themselves: each round looks at all of it again, and a run that was killed is gone on with by
//! the next.

mod acts;
mod scene;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::base::error::{Error, Result};
use crate::base::report::without_numbers;
use crate::desired::rotation::encryption::{Observed, Rotation};
use crate::desired::rotation::{Asked, Level, Seen, Step, decide, towards};
use crate::node::host::Host;
use scene::Scene;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the same may be waited for. guard may hold a bridge for ten minutes after several raises.
const LIMIT: Duration = Duration::from_secs(900);

/// What can be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// The key that Secrets are encrypted with in etcd.
    EncryptionKey,
}

impl Keys {
    /// As the command has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EncryptionKey => "encryption-key",
        }
    }
}

/// What is asked for.
pub struct Rotate<'a> {
    /// The controller.
    pub host: &'a Host,
    /// What is rotated.
    pub keys: Keys,
    /// What becomes of it.
    pub asked: Asked,
    /// Nothing is changed.
    pub is_plan: bool,
    /// The asset directory, if it is elsewhere than guard knows it.
    pub asset_dir: Option<PathBuf>,
}

/// Rotates, and says line by line what it does.
///
/// # Errors
/// What cannot be rotated; what was waited for in vain. Running it again goes on.
pub async fn rotate(asked: &Rotate<'_>, say: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let name = asked.keys.name();
    let scene = Scene::new(asked).await?;
    let (mut wanted, mut left, mut has_acted) = (asked.asked, None, false);
    let (mut said, mut since) = (String::new(), Instant::now());
    loop {
        let looked = scene.look().await;
        let step = match looked {
            Ok(observed) => {
                let observed = Observed { left, ..observed };
                let rotation = Rotation::of(&observed, wanted)?;
                let seen = rotation.seen(&observed, wanted);
                if asked.is_plan {
                    return plan(&rotation, &seen).iter().try_for_each(|line| say(line));
                }
                Some((decide(&seen), rotation, observed.guards_secret))
            }
            Err(error) if asked.is_plan || !error.is_passing() => return Err(error),
            Err(error) => {
                waits(name, &mut said, &mut since, error.to_string(), say)?;
                None
            }
        };
        let Some((step, rotation, guards)) = step else {
            sleep(PAUSE).await;
            continue;
        };
        let line = text(&step, &rotation);
        let done = match &step {
            Step::Nothing if has_acted => {
                return say(&format!("{name}: {} is the only key; take a new `hoist backup`", rotation.staying()));
            }
            Step::Nothing => {
                return say(&format!("{name}: {} is the only key, and no rotation is under way", rotation.staying()));
            }
            Step::AwaitFinish => return say(&line),
            Step::Wait(_) => {
                waits(name, &mut said, &mut since, line, say)?;
                sleep(PAUSE).await;
                continue;
            }
            Step::Count => {
                let found = scene.others(&rotation.prefix()).await;
                found.map(|found| left = Some(found.len() as u64))
            }
            Step::Rewrite => {
                say(&line)?;
                scene.rewrite(&rotation.prefix()).await.map(|()| left = None)
            }
            act => {
                say(&line)?;
                left = None;
                scene.act(act, rotation, &guards).await
            }
        };
        match done {
            Ok(()) => {
                has_acted |= step != Step::Count;
                if wanted == Asked::Rotate && has_acted {
                    wanted = Asked::Continue;
                }
                since = Instant::now();
            }
            Err(error) if error.is_passing() => {
                waits(name, &mut said, &mut since, error.to_string(), say)?;
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says what is waited for, once, and for how long at most.
fn waits(
    name: &str,
    said: &mut String,
    since: &mut Instant,
    text: String,
    say: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    if without_numbers(said) != without_numbers(&text) {
        say(&text)?;
        (*said, *since) = (text, Instant::now());
    } else if since.elapsed() >= LIMIT {
        return Err(Error::Failed {
            action: format!("rotate {name}"),
            cause: format!("for {} minutes nothing has changed: {text}", LIMIT.as_secs() / 60),
            next: Some(format!(
                "`hoist certs rotate {name} --continue` goes on from here, `--abort` leads back; all keys that are in use are known everywhere"
            )),
        });
    }
    Ok(())
}

/// What is done next, as a line.
fn text(step: &Step, rotation: &Rotation) -> String {
    let key = rotation.staying();
    let has = |level: &Level| match level {
        Level::Lacks | Level::Knows => format!("{key} can be read by"),
        Level::Uses => format!("{key} writes"),
        Level::Alone => format!("{} is dropped", rotation.going().join(", ")),
    };
    match step {
        Step::Nothing => format!("{key} is the only key"),
        Step::Begin => "a new key is made, and added to guard's Secret, to be read by".to_owned(),
        Step::WriteGuards(level) => format!("guard's Secret: {}", has(level)),
        Step::WriteDirectory(level) => format!("the asset directory: {}", has(level)),
        Step::WriteSecret(name, level) => format!("the Secret {name}: {}", has(level)),
        Step::Roll(name) => format!("{name} is rolled, one controller after the other, under the bridge"),
        Step::Wait(what) => format!("waiting for: {what}"),
        Step::Count => "etcd is read".to_owned(),
        Step::Rewrite => format!("Secrets that {key} has not encrypted are written again"),
        Step::AwaitFinish => format!(
            "every Secret in etcd is encrypted by {key}. `hoist certs rotate encryption-key --finish` drops {}; until then `--abort` leads back",
            rotation.going().join(", ")
        ),
    }
}

/// The phases, with where it stands.
fn plan(rotation: &Rotation, seen: &Seen) -> Vec<String> {
    let (key, going) = match seen.is_under_way {
        true => (rotation.staying().to_owned(), rotation.going().join(", ")),
        false => ("a new key".to_owned(), rotation.staying().to_owned()),
    };
    let mut is_reached = seen.is_under_way;
    let mut state = |next: Option<Step>| match next {
        _ if !is_reached => "to come".to_owned(),
        None => "done".to_owned(),
        Some(step) => {
            is_reached = false;
            format!("next: {}", text(&step, rotation))
        }
    };
    let rewrite = seen.left.is_none_or(|left| left > 0).then_some(Step::Count);
    let states = [state(towards(Level::Knows, seen)), state(towards(Level::Uses, seen)), state(rewrite)];
    let under = match seen.is_under_way {
        true if going.is_empty() => {
            format!("{key} is the only key, and not everything has settled: {}", text(&decide(seen), rotation))
        }
        true => format!("{going} is to go, {key} is to stay"),
        false => format!("{going} is the only key, and no rotation is under way"),
    };
    vec![
        format!("encryption-key: {under}"),
        format!(
            "1. {key} is added, to be read by: in guard's Secret, the copy of each guard, the Secret kube-apiserver; then the API servers are rolled under the bridge. It waits until each guard and each API server says that it has read the file. {}",
            states[0]
        ),
        format!("2. {key} writes: in the same places, in the same order. It waits for the same. {}", states[1]),
        format!("3. every Secret is written again. It waits until no value in etcd is of another key. {}", states[2]),
        format!("4. {going} is dropped, on --finish: in the same places, in the same order. to come"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_said_once_and_not_for_ever() {
        let mut lines = Vec::new();
        let (mut said, mut since) = (String::new(), Instant::now());
        let mut wait = |text: &str, since: &mut Instant| {
            waits("encryption-key", &mut said, since, text.to_owned(), &mut |line| {
                lines.push(line.to_owned());
                Ok(())
            })
        };
        wait("1 of 3 pods are new", &mut since).unwrap();
        wait("2 of 3 pods are new", &mut since).unwrap();
        wait("guard of c2", &mut since).unwrap();
        since = Instant::now().checked_sub(LIMIT).unwrap_or(since);
        let error = wait("guard of c2", &mut since).unwrap_err().to_string();
        assert!(error.contains("guard of c2") && error.contains("--continue"), "{error}");
        assert_eq!(lines, ["1 of 3 pods are new", "guard of c2"]);
    }
}
