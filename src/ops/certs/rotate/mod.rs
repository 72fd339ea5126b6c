//! `hoist certs rotate`: keys that are changed while everything serves.
//!
//! ```text
//! look.rs: guard's Secret, leases, rollouts, servers ─► Observed ─► Rotation, decide (desired, pure) ─► acts.rs
//!    └─ kind.rs: encryption.rs, service_account.rs, front_proxy.rs, etcd_ca.rs: what servers say, who still has what is of the old key
//! ```
//! There is no state but the keys themselves: each round looks at all of it again, and a run that was killed is gone on with by
//! the next.

mod acts;
mod encryption;
mod etcd_ca;
mod foreign;
mod front_proxy;
mod kind;
mod look;
mod scene;
mod service_account;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::base::error::{Error, Result};
use crate::base::report::without_numbers;
use crate::desired::rotation::{Asked, Keys, Observed, Rotation, Step, decide, rotation, seen};
use crate::node::host::Host;
use kind::Kind;
use scene::Scene;
use text::{plan, text};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the same may be waited for. guard may hold a bridge for ten minutes after several raises.
const LIMIT: Duration = Duration::from_secs(900);

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
    let kind = Kind::new(asked.keys, &scene).await?;
    let (mut wanted, mut left, mut has_acted) = (asked.asked, None, false);
    let (mut said, mut since) = (String::new(), Instant::now());
    loop {
        let looked = scene.look(&kind).await;
        let step = match looked {
            Ok(observed) => {
                let observed = Observed { left: left.clone(), ..observed };
                let rotation = rotation(asked.keys, &observed, wanted)?;
                let seen = seen(&*rotation, &observed, wanted);
                if asked.is_plan {
                    return plan(asked.keys, &*rotation, &seen).iter().try_for_each(|line| say(line));
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
        let line = text(asked.keys, &step, &*rotation);
        let done = match &step {
            Step::Nothing if has_acted => {
                return say(&format!("{name}: {line}; take a new `hoist backup`"));
            }
            Step::Nothing => {
                return say(&format!("{name}: {line}, and no rotation is under way"));
            }
            Step::AwaitFinish(_) => return say(&line),
            Step::Held(held) => return Err(still_held(name, wanted, &*rotation, held)),
            Step::Wait(_) => {
                waits(name, &mut said, &mut since, line, say)?;
                sleep(PAUSE).await;
                continue;
            }
            Step::Count => scene.left(&kind, &*rotation, wanted).await.map(|found| left = Some(found)),
            Step::Rewrite => {
                say(&line)?;
                left = None;
                scene.rewrite(&kind, &*rotation).await
            }
            act => {
                say(&line)?;
                left = None;
                scene.act(act, &*rotation, &guards).await
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

/// Why what is to go is not dropped.
fn still_held(name: &str, asked: Asked, rotation: &dyn Rotation, held: &[String]) -> Error {
    let option = if asked == Asked::Abort { "--abort" } else { "--finish" };
    Error::Failed {
        action: format!("drop the key {}", rotation.going().join(", ")),
        cause: held.join("; "),
        next: Some(format!(
            "`hoist certs rotate {name} {option}` again, once they have new ones: docs/rotation.md#who-still-has-an-old-token has how. {} signs, and both keys are accepted until then",
            rotation.staying()
        )),
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
