//! What a rotation does. Each act may be done twice.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::scene::{Scene, chosen, passing};
use crate::api::turn::Turn;
use crate::api::{certificates, guard, rotation as api, write};
use crate::base::error::Result;
use crate::base::files::{self, File};
use crate::desired::assets::AssetSet;
use crate::desired::renewal;
use crate::desired::rotation::etcd_ca::MEMBER;
use crate::desired::rotation::front_proxy::CONFIG_MAP;
use crate::desired::rotation::{Keys, Level, Rotation, Step, in_tls, put};
use crate::desired::secrets::Tls;
use crate::plane::kept_copy::Copy;

/// How long another controller's turn is waited for.
const TURN: Duration = Duration::from_secs(60);

impl Scene<'_> {
    /// Does one act; guard's Secret has `guards` as long as nobody else has written it.
    ///
    /// # Errors
    /// The API server's and the system's word.
    pub async fn act(&self, step: &Step, rotation: &dyn Rotation, guards: &Tls) -> Result<()> {
        match step {
            Step::Begin => self.write_guards(guards, &rotation.begun()?.content(Level::Knows)?).await,
            Step::WriteGuards(level) => self.write_guards(guards, &rotation.content(*level)?).await,
            Step::WriteDirectory(level) => self.write_directory(&rotation.content(*level)?),
            Step::WriteSecret(name, level) => {
                let content = rotation.content(*level)?;
                let new = |key: &str, _: &[u8]| content.get(in_tls(key)).cloned();
                certificates::replace(&self.client, name, new).await.map(drop)
            }
            Step::Roll(CONFIG_MAP) => self.tell_aggregated().await,
            Step::Roll(MEMBER) => self.member_begins_again().await,
            Step::Roll(name) => api::roll(&self.client, name, self.host.world().now()).await,
            Step::Nothing | Step::Wait(_) | Step::Count | Step::Rewrite | Step::AwaitFinish(_) | Step::Held(_) => {
                Ok(())
            }
        }
    }

    /// Under the turn: guards write into that Secret, too, when they renew; and two who rotate at once make no two keys.
    async fn write_guards(&self, seen: &Tls, content: &Tls) -> Result<()> {
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
            if chosen(kept.assets.tls(), self.keys.files()) != *seen {
                return Ok(());
            }
            let kept = Copy { assets: with(&kept.assets, content), ..kept };
            write::guard_copy(&self.client, &kept.to_json(), &kept.sum()).await
        };
        let written = written.await;
        written.and(turn.give_back(&self.client).await)
    }

    fn write_directory(&self, content: &Tls) -> Result<()> {
        let Some(dir) = &self.asset_dir else { return Ok(()) };
        let assets = AssetSet::load(dir)?;
        let mut changed = with(&assets, content);
        if self.keys == Keys::EtcdCa {
            // What its members show is of the first of etcd's CAs, as in guards' copies.
            let lifetime = self.cluster.pki.certificate_validity;
            changed = renewal::by_first_ca(&changed, lifetime, self.host.world().now())?;
        }
        let changed = changed
            .files
            .into_iter()
            .filter(|(path, file)| assets.files.get(path).is_none_or(|old| old.content != file.content));
        // By what one tells how far it is comes last: a run that was killed does all of it again.
        let (last, first): (Vec<_>, Vec<_>) =
            changed.partition(|(path, _)| content.contains_key(path.trim_start_matches("tls/")));
        for (path, file) in first.into_iter().chain(last) {
            files::write(&dir.join(path), &File::private(file.content))?;
        }
        Ok(())
    }
}

/// `assets` with these files of tls/.
fn with(assets: &AssetSet, content: &Tls) -> AssetSet {
    content.iter().fold(assets.clone(), |assets, (path, bytes)| put(&assets, path, bytes))
}
