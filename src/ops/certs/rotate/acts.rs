//! What a rotation does. Each act may be done twice.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::scene::{Scene, passing};
use crate::api::turn::Turn;
use crate::api::{certificates, guard, rotation as api, write};
use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::desired::assets::AssetSet;
use crate::desired::pki::ENCRYPTION;
use crate::desired::rotation::encryption::{READER, Rotation};
use crate::desired::rotation::{Level, Step, put};
use crate::etcd::client::{Client as Etcd, Failed};
use crate::plane::kept_copy::Copy;

/// Where etcd's clients reach it on loopback.
const ETCD_PORT: u16 = 2379;
/// How long etcd may take for one answer.
const ETCD_LIMIT: Duration = Duration::from_secs(20);
/// How long another controller's turn is waited for.
const TURN: Duration = Duration::from_secs(60);
/// Between two Secrets that are written again: the API has others to serve.
const PACE: Duration = Duration::from_millis(5);
/// How many refusals are told.
const TOLD: usize = 5;

impl Scene<'_> {
    /// Does one act; guard's Secret has `guards` as long as nobody else has written it.
    ///
    /// # Errors
    /// The API server's and the system's word.
    pub async fn act(&self, step: &Step, rotation: Rotation, guards: &[u8]) -> Result<()> {
        match step {
            Step::Begin => self.write_guards(guards, &rotation.begun()?.content(Level::Knows)).await,
            Step::WriteGuards(level) => self.write_guards(guards, &rotation.content(*level)).await,
            Step::WriteDirectory(level) => self.write_directory(&rotation.content(*level)),
            Step::WriteSecret(name, level) => {
                let content = rotation.content(*level);
                let new = |key: &str, _: &[u8]| (key == ENCRYPTION).then(|| content.clone());
                certificates::replace(&self.client, name, new).await.map(drop)
            }
            Step::Roll(name) => api::roll(&self.client, name, self.host.world().now()).await,
            Step::Nothing | Step::Wait(_) | Step::Count | Step::Rewrite | Step::AwaitFinish => Ok(()),
        }
    }

    /// Under the turn: guards write into that Secret, too, when they renew; and two who rotate at once make no two keys.
    async fn write_guards(&self, seen: &[u8], content: &[u8]) -> Result<()> {
        let (name, world) = (&self.controller.name, self.host.world());
        let mut turn = Turn::of_process(&format!("{name}_rotate"), world.now());
        let begun = Instant::now();
        while !turn.take(&self.client, Instant::now(), world.now()).await? {
            if begun.elapsed() >= TURN {
                return Err(passing("another controller has had the turn for a minute"));
            }
            sleep(Duration::from_secs(1)).await;
        }
        let written = async {
            let text = guard::copy(&self.client).await?.ok_or_else(|| passing("the Secret hoist-guard is gone"))?;
            let kept = Copy::of_secret(&text)?;
            if kept.assets.tls().get(ENCRYPTION).map(Vec::as_slice) != Some(seen) {
                return Ok(());
            }
            let kept = Copy { assets: put(&kept.assets, ENCRYPTION, content), ..kept };
            write::guard_copy(&self.client, &kept.to_json(), &kept.sum()).await
        };
        let written = written.await;
        written.and(turn.give_back(&self.client).await)
    }

    fn write_directory(&self, content: &[u8]) -> Result<()> {
        let Some(dir) = &self.asset_dir else { return Ok(()) };
        let assets = AssetSet::load(dir)?;
        let changed = put(&assets, ENCRYPTION, content).files;
        let changed = changed
            .into_iter()
            .filter(|(path, file)| assets.files.get(path).is_none_or(|old| old.content != file.content));
        // What `start` reads first comes last: half of it is refused.
        for (path, file) in changed {
            files::write(&dir.join(path), &File::private(file.content))?;
        }
        Ok(())
    }

    /// The Secrets, by namespace and name, whose values in etcd do not begin with `prefix`.
    ///
    /// # Errors
    /// etcd's word.
    pub async fn others(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let failed = |error: Failed| Error::failed("read Secrets in etcd", error);
        let address = SocketAddr::new(self.cluster.loopback(), ETCD_PORT);
        let mut etcd = Etcd::connect(address, &self.copy.assets.tls(), ETCD_LIMIT).await.map_err(failed)?;
        let mut found = Vec::new();
        let take = |key: &[u8], value: &[u8]| {
            let name =
                std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.etcd_prefix)?.split_once('/'));
            if let Some((namespace, name)) = name.filter(|_| !value.starts_with(prefix.as_bytes())) {
                found.push((namespace.to_owned(), name.to_owned()));
            }
        };
        etcd.each_value(&self.etcd_prefix, take).await.map_err(failed)?;
        Ok(found)
    }

    /// Has each of them written again.
    ///
    /// # Errors
    /// Those that were refused, once all others are written.
    pub async fn rewrite(&self, prefix: &str) -> Result<()> {
        let (mut refused, mut is_passing) = (Vec::new(), true);
        for (namespace, name) in self.others(prefix).await? {
            if let Err(error) = api::write_again(&self.client, &namespace, &name).await {
                is_passing &= error.is_passing();
                refused.push(error.to_string().replace('\n', " "));
            }
            sleep(PACE).await;
        }
        if refused.is_empty() {
            return Ok(());
        }
        let more = refused.len().saturating_sub(TOLD);
        let mut cause = refused[..refused.len() - more].join("; ");
        if more > 0 {
            cause.push_str(&format!("; and {more} more"));
        }
        match is_passing {
            true => Err(passing(&cause)),
            false => Err(Error::Failed {
                action: "have every Secret encrypted by the new key".into(),
                cause,
                next: Some(format!(
                    "a webhook or a policy may refuse it; both keys stay known to every {READER} meanwhile. Then `hoist certs rotate encryption-key --continue`"
                )),
            }),
        }
    }
}
