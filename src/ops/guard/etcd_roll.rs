//! An etcd that is to begin anew by a manifest that kept its pod's uid is ended here, in each round.
//!
//! Another image for the etcd of this controller, when an upgrade orders it. guard keeps the old manifest until the new etcd
//! serves, and puts it back if it does not.
//!
//! | | is so | then |
//! |---|---|---|
//! | 1 | an exchange is under way, and the etcd that runs is younger and serves | it has come to its end |
//! | 2 | an exchange is under way, for longer than [`PATIENCE`] | the old manifest is put back, and why is noted |
//! | 3 | it was put back | the cluster is told why, as soon as it can be |
//! | 4 | etcd's image is another than the copy's, and an order for this controller names the copy's | a snapshot, then the new manifest |

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::heartbeat;
use crate::api::etcd_roll::{self, Order, Refused};
use crate::api::guard::{self, NodeEvent};
use crate::api::write;
use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::base::report::{News, Reporter};
use crate::desired::config::API_PORT;
use crate::etcd::alarms::PORT;
use crate::etcd::save::save;
use crate::node::etcd_manifest::{self, NAME as MANIFEST};
use crate::node::host::Host;
use crate::node::static_pods::StaticPods;
use crate::node::{images, lock};
use crate::plane::guard_pod;
use crate::plane::kept_copy::Copy;
use crate::plane::member::{self, EXCHANGE, SNAPSHOTS};
use crate::plane::remembered::Remembered;

/// Between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a round may take, a snapshot of a large database included.
const LIMIT: Duration = Duration::from_secs(600);
/// How long etcd may take to say whether it serves.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long a new etcd may take until it serves: then the old one comes back.
const PATIENCE: Duration = Duration::from_secs(120);

/// An exchange, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UnderWay {
    order: Order,
    /// The manifest of before.
    before: String,
    /// When it began, in seconds since 1970.
    began: i64,
    /// Why the manifest of before was put back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Carries out orders for ever. What fails is said once, and tried again.
pub(super) async fn run(host: &Host, node: &str, reporter: &Reporter) -> Infallible {
    let mut roll = Roll { host, node, reporter, copy: None, shown: None };
    let mut news = News::default();
    loop {
        let round = timeout(LIMIT, roll.round()).await;
        match round.unwrap_or_else(|_| Err(Error::failed("exchange etcd", "no end in time"))) {
            Ok(()) | Err(Error::Locked { .. }) => {}
            Err(error) => news.note(reporter, error.to_string()),
        }
        sleep(INTERVAL).await;
    }
}

struct Roll<'a> {
    host: &'a Host,
    node: &'a str,
    reporter: &'a Reporter,
    /// guard's copy, and the mark of its file.
    copy: Option<(guard_pod::Mark, Copy)>,
    /// The manifest that kept its pod's uid, and that the API shows.
    shown: Option<String>,
}

impl Roll<'_> {
    async fn round(&mut self) -> Result<()> {
        if etcd_manifest::end_older(self.host).await? {
            self.reporter.note("etcd was ended, and begins anew by its manifest, which is younger");
        }
        let mark = guard_pod::mark(self.host);
        if self.copy.as_ref().is_none_or(|(seen, _)| *seen != mark) {
            self.copy = Copy::load(self.host)?.map(|copy| (mark, copy));
        }
        let Some((_, copy)) = &self.copy else { return Ok(()) };
        if member::is_in_the_making(self.host, copy) || !member::has_manifest(self.host) {
            return Ok(());
        }
        if let Some(under_way) = self.under_way()? {
            return self.go_on(copy, under_way).await;
        }
        let pods = StaticPods::new(self.host.manifests());
        let Some(there) = pods.read(MANIFEST).filter(|_| pods.has_own(MANIFEST)) else { return Ok(()) };
        if pods.kept(MANIFEST).is_some()
            && self.shown.as_ref() != Some(&there)
            && self.is_new()?
            && self.serves(copy).await
        {
            let client = heartbeat::client(self.host, copy, self.address(copy)?).await?;
            self.show(&client).await?;
            self.shown = Some(there);
            return Ok(());
        }
        let Some(image) = differing(copy, &there) else { return Ok(()) };
        let client = heartbeat::client(self.host, copy, self.address(copy)?).await?;
        let order = etcd_roll::order(&client).await?.filter(|order| order.node == self.node && order.image == image);
        let Some(order) = order else { return Ok(()) };
        if etcd_roll::refused(&client, self.node).await?.is_some_and(|refused| refused.order == order) {
            return Ok(());
        }
        if let Some(why) = self.begin(copy, &there, &order).await? {
            self.reporter.note(&format!("etcd stays as it is: {why}"));
            etcd_roll::refuse(&client, &Refused { order, why }).await?;
        }
        Ok(())
    }

    /// Begins; says what keeps it from that.
    async fn begin(&self, copy: &Copy, there: &str, order: &Order) -> Result<Option<String>> {
        if let Some(present) = guard_pod::present(self.host, copy).await
            && !images::missing([&*images::with_image(there, "etcd", &order.image)], &present).is_empty()
        {
            return Ok(Some(format!("the image {} is not on this machine", order.image)));
        }
        if !self.serves(copy).await {
            return Err(Error::failed("exchange etcd", "the one that is there does not serve"));
        }
        if let Err(error) = self.save(copy, &order.image).await {
            return Ok(Some(error.to_string()));
        }
        let _lock = lock::try_take(self.host)?;
        let began = self.host.world().now().unix_timestamp();
        self.write(&UnderWay { order: order.clone(), before: there.to_owned(), began, failed: None })?;
        self.reporter.note(&format!("etcd is exchanged for one of {}", order.image));
        self.install(&images::with_image(there, "etcd", &order.image))?;
        if Remembered::is_only(self.host, &copy.cluster()?.0) {
            etcd_manifest::hasten(self.host).await?;
        }
        Ok(None)
    }

    async fn go_on(&self, copy: &Copy, mut under_way: UnderWay) -> Result<()> {
        if let Some(why) = under_way.failed {
            let client = heartbeat::client(self.host, copy, self.address(copy)?).await?;
            self.tell(&client, "EtcdPutBack", format!("etcd has its image of before again: {why}"), true).await?;
            etcd_roll::refuse(&client, &Refused { order: under_way.order, why }).await?;
            return files::remove(&self.host.path(EXCHANGE)).map(drop);
        }
        let image = under_way.order.image.clone();
        // guard was killed before it put it in.
        if StaticPods::new(self.host.manifests()).read(MANIFEST).is_some_and(|there| there == under_way.before) {
            self.install(&images::with_image(&under_way.before, "etcd", &image))?;
        }
        if self.is_new()? && self.serves(copy).await {
            let client = heartbeat::client(self.host, copy, self.address(copy)?).await?;
            self.show(&client).await?;
            self.tell(&client, "EtcdExchanged", format!("etcd runs {image}, and serves"), false).await?;
            return files::remove(&self.host.path(EXCHANGE)).map(drop);
        }
        let age = self.host.world().now().unix_timestamp() - under_way.began;
        if u64::try_from(age).unwrap_or_default() > PATIENCE.as_secs() {
            let why = format!("one of {image} has not served within {} s", PATIENCE.as_secs());
            self.reporter.note(&format!("etcd has its image of before again: {why}"));
            under_way.failed = Some(why);
            let _lock = lock::take(self.host)?;
            self.install(&under_way.before)?;
            self.write(&under_way)?;
        }
        Ok(())
    }

    /// Has the API show the manifest that is there: the mirror of a pod keeps the text that it was made of. The kubelet makes another
    /// mirror, and leaves the pod alone.
    async fn show(&self, client: &kube::Client) -> Result<()> {
        write::delete_pods(client, &[("kube-system".into(), format!("etcd-{}", self.node))]).await
    }

    /// Whether the etcd that runs began after its manifest came there.
    fn is_new(&self) -> Result<bool> {
        Ok(etcd_manifest::oldest(self.host)?.is_some() && !etcd_manifest::is_to_end(self.host)?)
    }

    async fn serves(&self, copy: &Copy) -> bool {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        self.host.world().etcd_serves(local, &copy.assets.tls(), ASK_LIMIT).await
    }

    /// Saves what etcd has, by the name of the image that comes: the way back from what another version writes.
    async fn save(&self, copy: &Copy, image: &str) -> Result<()> {
        let tag = image.rsplit(['/', ':', '@']).next().unwrap_or(image);
        let path = self.host.path(SNAPSHOTS).join(format!("before-{tag}.db"));
        files::make_dir(&self.host.path(SNAPSHOTS), 0o700)?;
        let begun = Instant::now();
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let length = save(local, &copy.assets.tls(), &path).await?;
        let took = begun.elapsed().as_secs_f64();
        self.reporter.note(&format!("a snapshot of etcd, {length} bytes, is at {} ({took:.1} s)", path.display()));
        Ok(())
    }

    async fn tell(&self, client: &kube::Client, reason: &'static str, message: String, is_warning: bool) -> Result<()> {
        let event = NodeEvent { at: self.host.world().now(), reason, message, is_warning };
        guard::record(client, self.node, &event).await
    }

    fn install(&self, text: &str) -> Result<()> {
        StaticPods::new(self.host.manifests()).install_lasting(MANIFEST, text).map(drop)
    }

    fn address(&self, copy: &Copy) -> Result<SocketAddr> {
        let (_, controller) = copy.cluster()?;
        Ok(SocketAddr::new(controller.address, API_PORT))
    }

    fn under_way(&self) -> Result<Option<UnderWay>> {
        let text = files::read_if_there(&self.host.path(EXCHANGE))?;
        text.map(|text| serde_json::from_slice(&text))
            .transpose()
            .map_err(|error| Error::failed(format!("read {}", self.host.path(EXCHANGE).display()), error))
    }

    fn write(&self, under_way: &UnderWay) -> Result<()> {
        let text = serde_json::to_string(under_way).unwrap_or_default();
        files::write(&self.host.path(EXCHANGE), &File::private(text)).map(drop)
    }
}

/// The image that the copy has for etcd, where its manifest has another.
fn differing(copy: &Copy, there: &str) -> Option<String> {
    let wanted = copy.assets.text("bootstrap-manifests/etcd.yaml").ok()?;
    let wanted = images::of_container(&wanted, "etcd")?;
    images::of_container(there, "etcd").filter(|image| *image != wanted).map(|_| wanted)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::base::report::Output;
    use crate::desired::assets::AssetSet;
    use crate::desired::config::Cluster;
    use crate::node::system;

    /// A controller whose etcd has another image than its copy, below a folder.
    struct Scene {
        _root: tempfile::TempDir,
        host: Host,
        copy: Copy,
    }

    const OLD: &str = "registry.k8s.io/etcd:3.0.0";

    fn rendered() -> (AssetSet, Cluster) {
        let text = "apiVersion: hoist/v1alpha1\nkind: Cluster\ncontrollers:\n- {name: c1, address: 10.0.0.1}\n";
        let cluster = crate::desired::config::parse("cluster.yaml", text, Path::new("/")).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let pki = crate::desired::pki::issue(&cluster, &Default::default(), &Default::default(), now).unwrap();
        (crate::desired::render::render(&cluster, &pki.files, "abcdef.0123456789abcdef").unwrap(), cluster)
    }

    impl Scene {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let host = system::host(root.path(), Path::new("/etc/kubernetes/manifests"));
            let (assets, cluster) = rendered();
            let copy = Copy::new(&assets, &cluster, &cluster.controllers[0]);
            copy.store(&host).unwrap();
            fs::create_dir_all(host.path("/proc")).unwrap();
            fs::create_dir_all(host.path("/run")).unwrap();
            fs::write(host.path("/proc/uptime"), "1000.00 1.00\n").unwrap();
            let manifest = copy.assets.text("bootstrap-manifests/etcd.yaml").unwrap();
            let pods = StaticPods::new(host.manifests());
            pods.install_lasting(MANIFEST, &images::with_image(&manifest, "etcd", OLD)).unwrap();
            Self { _root: root, host, copy }
        }

        fn there(&self) -> String {
            StaticPods::new(self.host.manifests()).read(MANIFEST).unwrap()
        }

        fn uid(&self) -> String {
            let text = fs::read_to_string(self.host.manifests().join(MANIFEST)).unwrap();
            text.lines().find(|line| line.starts_with("  uid: ")).unwrap().to_owned()
        }

        fn image(&self) -> String {
            images::of_container(&self.there(), "etcd").unwrap()
        }

        fn under_way(&self, seconds_ago: i64) -> UnderWay {
            let image = differing(&self.copy, &self.there()).unwrap();
            let order = Order { node: "c1".into(), image, number: 1 };
            let began = self.host.world().now().unix_timestamp() - seconds_ago;
            UnderWay { order, before: self.there(), began, failed: None }
        }
    }

    #[tokio::test]
    async fn one_that_does_not_serve_in_time_is_put_back_and_the_reason_kept() {
        let scene = Scene::new();
        let reporter = Reporter::stdout(Output::Text, false);
        let mut roll = Roll { host: &scene.host, node: "c1", reporter: &reporter, copy: None, shown: None };
        let (before, uid) = (scene.there(), scene.uid());
        let under_way = scene.under_way(5);
        roll.write(&under_way).unwrap();
        // guard was killed before it put the new manifest in.
        roll.round().await.unwrap();
        assert_eq!(scene.image(), under_way.order.image);
        assert_eq!(scene.uid(), uid, "the kubelet changes the image of the pod that is there");
        roll.round().await.unwrap();
        assert_eq!(roll.under_way().unwrap(), Some(under_way.clone()), "it has time yet");
        roll.write(&UnderWay { began: under_way.began - 200, ..under_way }).unwrap();
        roll.round().await.unwrap();
        assert_eq!((scene.there(), scene.uid()), (before, uid.clone()));
        // Until the cluster was told.
        assert!(roll.under_way().unwrap().unwrap().failed.unwrap().contains("has not served within 120 s"));
    }

    #[test]
    fn an_etcd_is_new_if_it_began_after_its_manifest() {
        let scene = Scene::new();
        let reporter = Reporter::stdout(Output::Text, false);
        let roll = Roll { host: &scene.host, node: "c1", reporter: &reporter, copy: None, shown: None };
        assert!(!roll.is_new().unwrap(), "none runs");
        let proc = scene.host.path("/proc/7");
        fs::create_dir_all(&proc).unwrap();
        let began = |seconds: u32| {
            let fields = format!("7 (etcd) S{}", " 0".repeat(18));
            fs::write(proc.join("stat"), format!("{fields} {} 0\n", seconds * 100)).unwrap();
            fs::write(proc.join("cmdline"), "etcd\0--name=c1\0").unwrap();
        };
        began(400);
        assert!(!roll.is_new().unwrap(), "it is ten minutes old, and its manifest a moment");
        // The machine has run for 1000 s.
        began(1000);
        assert!(roll.is_new().unwrap());
    }

    #[test]
    fn only_another_image_than_the_copys_is_another() {
        let scene = Scene::new();
        assert!(differing(&scene.copy, &scene.there()).unwrap().starts_with("registry.k8s.io/etcd:3."));
        let wanted = scene.copy.assets.text("bootstrap-manifests/etcd.yaml").unwrap();
        assert_eq!(differing(&scene.copy, &wanted), None);
        assert_eq!(differing(&scene.copy, "kind: Pod\n"), None);
    }
}
