//! Room on the disks, and whether they can be written and programs on them run.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::Facts;
use crate::base::error::Finding;
use crate::desired::assets::{AssetSet, CLUSTER_ID};
use crate::desired::config::Etcd;
use crate::desired::pki;
use crate::node::etcd_data::Data;
use crate::node::host::Host;
use crate::node::mounts::Mounts;
use crate::plane::kept_copy;

const MIB: u64 = 1 << 20;

/// The folder of the etcd data, where this machine has any.
fn data_dir(facts: &Facts) -> Option<&str> {
    match &facts.cluster.etcd {
        Etcd::Local { data_dir, .. } => Some(data_dir),
        Etcd::External { .. } => None,
    }
}

/// What fills which folder, the room without which nothing comes up, and the room that is no more than enough.
fn needs(facts: &Facts) -> Vec<(&str, &'static str, u64, u64)> {
    let etcd = data_dir(facts).map(|dir| (dir, "etcd's data", 256 * MIB, 2048 * MIB));
    let images = ("/var/lib/containerd", "images", 256 * MIB, 2048 * MIB);
    let others =
        [("/var/lib/kubelet", "the kubelet's volumes", 64 * MIB, 512 * MIB), ("/var/log", "logs", 64 * MIB, 512 * MIB)];
    // Another runtime keeps its images elsewhere.
    let images = facts.host.path("/var/lib/containerd").is_dir().then_some(images);
    etcd.into_iter().chain(images).chain(others).collect()
}

pub(super) fn space(facts: &Facts) -> Vec<Finding> {
    let look = |(path, what, least, enough): (&str, &'static str, u64, u64)| {
        let free = free(&existing(&facts.host.path(path)))?;
        judge(path, what, free, least, enough)
    };
    needs(facts).into_iter().filter_map(look).collect()
}

/// The bytes that are left for root on the file system of a folder.
fn free(path: &Path) -> Option<u64> {
    let stat = statvfs(path).ok()?;
    Some(stat.fragment_size() * stat.blocks_free())
}

fn judge(path: &str, what: &str, free: u64, least: u64, enough: u64) -> Option<Finding> {
    if free >= enough {
        return None;
    }
    let message = format!("{} MB are free for {what}", free / MIB);
    let finding = |need: u64, word: &str| {
        Finding::new(path, format!("{message}, and {} MB are {word}", need / MIB))
            .remedy("make room, or mount a larger disk there")
    };
    Some(if free < least { finding(least, "needed") } else { finding(enough, "little enough").warning() })
}

/// The folder itself, or the nearest one above it that there is.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(path).to_owned()
}

pub(super) fn writable(facts: &Facts) -> Vec<Finding> {
    let folders = ["/etc/kubernetes", "/etc/systemd/system", "/run", "/var/lib/hoist", "/var/lib/kubelet"];
    let folders = folders.into_iter().chain(data_dir(facts)).map(|path| facts.host.path(path));
    let mut findings = Vec::new();
    for folder in folders.chain([facts.host.manifests().to_owned()]) {
        let dangling = folder.ancestors().find(|path| path.is_symlink() && !path.exists());
        let nearest = dangling.map_or_else(|| existing(&folder), Path::to_owned);
        let problem = if dangling.is_some() {
            Some("is a link whose target does not exist".to_owned())
        } else if !nearest.is_dir() {
            Some("is not a folder".to_owned())
        } else {
            access(&nearest, AccessFlags::W_OK).err().map(|error| format!("cannot be written: {}", error.desc()))
        };
        let Some(problem) = problem else { continue };
        let finding = Finding::new(nearest.display().to_string(), problem)
            .remedy(format!("hoist writes to {}: make it a folder on a writable disk", folder.display()));
        // Several of them may be below one that is wrong.
        if !findings.iter().any(|there: &Finding| there.place == finding.place) {
            findings.push(finding);
        }
    }
    findings
}

/// hoist's own binary, where the kubelet's unit and the container runtime run it. runc clears the flag for what a pod mounts
/// to read alone, as guard and the forwarder do; the unit meets it in any case.
pub(super) fn executable(facts: &Facts) -> Vec<Finding> {
    let folder = "/var/lib/hoist";
    let Some(point) = noexec(facts, folder) else { return Vec::new() };
    let message = format!(
        "is on {point}, which is mounted noexec: the kubelet's unit cannot run hoist there, so that the API is away for longer after a boot, and some container runtimes cannot start guard and the forwarder"
    );
    vec![Finding::new(folder, message).remedy(exec(&point))]
}

/// Where the file system of a folder is mounted, if it is one whose programs cannot be run.
pub(super) fn noexec(facts: &Facts, folder: &str) -> Option<String> {
    let own = facts.host.inside(&facts.host.resolve(Path::new(folder)));
    let mounts = Mounts::of(&facts.host);
    mounts.around(&own).filter(|mount| mount.is_noexec()).map(|mount| mount.point.display().to_string())
}

/// What lets programs be run there.
pub(super) fn exec(point: &str) -> String {
    format!(
        "`mount -o remount,exec {point}`, and take noexec out of its line in /etc/fstab; or mount another file system there"
    )
}

/// etcd data without hoist's etcd: of an earlier cluster, whose objects would come back to life. And the other way about: a
/// cluster that is known here, and no data of it.
pub(super) fn etcd_data(facts: &Facts) -> Vec<Finding> {
    let Some(data) = Data::of(&facts.host, &facts.cluster) else { return Vec::new() };
    let (dir, member) = (data.name(), data.dir().join("member"));
    if !data.is_there() && !facts.new_cluster {
        return gone(facts, &data).into_iter().collect();
    }
    // The mark alone is no data: a start was cut short before etcd began.
    let has_data = std::fs::read_dir(&member)
        .is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(|entry| entry.path() != data.mark())));
    if !has_data || crate::plane::bridge::Bridge::new(&facts.host).has_etcd() {
        return Vec::new();
    }
    let sums = facts.assets.tls().get("etcd/ca.crt").map(|ca| pki::ca_sums(ca)).unwrap_or_default();
    if std::fs::read_to_string(facts.host.kept_etcd(dir)).is_ok_and(|kept| kept.lines().any(|sum| sums.contains(sum))) {
        return Vec::new();
    }
    let message = "holds the data of an earlier etcd, and hoist's etcd is not installed here";
    vec![Finding::new(member.display().to_string(), message).remedy(
        "`hoist recover` with this asset directory brings its cluster back; to begin a new one, move the folder away",
    )]
}

/// What knows of a cluster that was brought up on this machine, or from these assets, if anything does.
pub(crate) fn known_by(host: &Host, assets: &AssetSet) -> Option<&'static str> {
    // One that is torn is one that was there.
    let by_guard = !matches!(kept_copy::Copy::load(host), Ok(None));
    match (by_guard, assets.files.contains_key(CLUSTER_ID)) {
        (true, _) => Some("guard's copy on this machine"),
        (false, true) => Some("the asset directory (cluster-id)"),
        (false, false) => None,
    }
}

/// The data of a cluster that this machine or the asset directory has known.
fn gone(facts: &Facts, data: &Data) -> Option<Finding> {
    let by = known_by(&facts.host, &facts.assets)?;
    let message = format!("has no etcd data, and {by} knows of a cluster: a new, empty one would begin");
    Some(Finding::new(data.dir().display().to_string(), message).remedy(Data::remedy()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Machine, said};
    use super::*;
    use crate::base::files::File;

    #[test]
    fn little_room_warns_and_none_is_refused() {
        let judge =
            |free| judge("/var/log", "logs", free * MIB, 64, 512 * MIB).map(|finding| said(&[finding])[0].clone());
        assert_eq!(judge(512), None);
        assert_eq!(judge(511).unwrap(), "/var/log: warning: 511 MB are free for logs, and 512 MB are little enough");
        let none = super::judge("/var/log", "logs", 63 * MIB, 64 * MIB, 512 * MIB).unwrap();
        assert_eq!(said(&[none]), ["/var/log: 63 MB are free for logs, and 64 MB are needed"]);
    }

    #[test]
    fn every_file_system_is_measured_where_it_will_be() {
        let machine = Machine::new();
        assert!(free(&existing(&machine.host().path("/var/lib/none/such"))).is_some());
        let paths = |facts: &Facts| needs(facts).into_iter().map(|need| need.0.to_owned()).collect::<Vec<_>>();
        assert_eq!(paths(&machine.facts("")), ["/var/lib/etcd", "/var/lib/kubelet", "/var/log"]);
        machine.put("/var/lib/containerd/x", "");
        assert!(paths(&machine.facts("")).contains(&"/var/lib/containerd".to_owned()));
    }

    #[test]
    fn a_file_where_a_folder_belongs() {
        let machine = Machine::new();
        assert!(writable(&machine.facts("")).is_empty());
        machine.put("/etc/kubernetes", "");
        let path = machine.host().path("/etc/kubernetes");
        assert_eq!(said(&writable(&machine.facts(""))), [format!("{}: is not a folder", path.display())]);
    }

    #[test]
    fn a_link_that_leads_nowhere() {
        let machine = Machine::new();
        machine.put("/var/lib/x", "");
        let link = machine.host().path("/var/lib/etcd");
        std::os::unix::fs::symlink("../../data/etcd", &link).unwrap();
        let found = said(&writable(&machine.facts("")));
        assert_eq!(found, [format!("{}: is a link whose target does not exist", link.display())]);
        std::fs::create_dir_all(machine.host().path("/data/etcd")).unwrap();
        assert!(writable(&machine.facts("")).is_empty());
    }

    #[test]
    fn programs_can_be_run_where_hoists_is() {
        let machine = Machine::new();
        assert!(executable(&machine.facts("")).is_empty(), "the kernel does not tell");
        machine.mounts(&[("/", "rw,relatime"), ("/var", "rw,nosuid,nodev"), ("/tmp", "rw,noexec")]);
        assert!(executable(&machine.facts("")).is_empty());
        machine.mounts(&[("/", "rw,relatime"), ("/var", "rw,nosuid,nodev,noexec")]);
        let found = executable(&machine.facts(""));
        assert!(said(&found)[0].starts_with("/var/lib/hoist: is on /var, which is mounted noexec: "), "{found:?}");
        assert!(found[0].remedy.as_ref().unwrap().starts_with("`mount -o remount,exec /var`"), "{found:?}");
        // A folder of its own elsewhere.
        machine.put("/data/hoist/bin/hoist", "");
        machine.put("/var/lib/x", "");
        std::os::unix::fs::symlink("/data/hoist", machine.host().path("/var/lib/hoist")).unwrap();
        assert!(executable(&machine.facts("")).is_empty());
    }

    #[test]
    fn data_of_another_etcd() {
        let machine = Machine::new();
        assert!(etcd_data(&machine.facts("")).is_empty());
        machine.put("/var/lib/etcd/member/hoist-began", "");
        assert!(etcd_data(&machine.facts("")).is_empty(), "a start was cut short");
        machine.put("/var/lib/etcd/member/wal/0.wal", "");
        machine.put("/var/lib/etcd/member/snap/db", "x");
        assert!(said(&etcd_data(&machine.facts("")))[0].contains("the data of an earlier etcd"));
        let mut facts = machine.facts("");
        facts.assets = super::super::testing::tls(super::super::testing::now());
        let ca = facts.assets.text("tls/etcd/ca.crt").unwrap();
        machine.put("/var/lib/etcd/hoist-cluster", crate::base::files::sha256(ca.as_bytes()) + "\n");
        assert!(etcd_data(&facts).is_empty(), "reset has kept it of this cluster");
        // A rotation of etcd's CA was under way, or has begun since.
        let now = time::OffsetDateTime::now_utc();
        let (new, _) = pki::etcd_ca(std::time::Duration::from_hours(24), now).unwrap();
        let sums = |text: &str| pki::ca_sums(text.as_bytes()).into_iter().collect::<Vec<_>>().join("\n") + "\n";
        machine.put("/var/lib/etcd/hoist-cluster", sums(&(new.clone() + &ca)));
        assert!(etcd_data(&facts).is_empty());
        machine.put("/var/lib/etcd/hoist-cluster", sums(&ca));
        facts.assets.files.insert("tls/etcd/ca.crt".into(), File::public(ca.clone() + &new));
        assert!(etcd_data(&facts).is_empty());
        machine.put("/var/lib/etcd/hoist-cluster", sums("another's"));
        assert!(said(&etcd_data(&facts))[0].contains("the data of an earlier etcd"));
        machine.put("/etc/kubernetes/manifests/etcd.yaml", "");
        assert!(etcd_data(&machine.facts("")).is_empty(), "it is of this cluster");
    }

    #[test]
    fn no_data_of_a_cluster_that_is_known() {
        for (path, who) in
            [("/var/lib/hoist/guard/bridge.json", "guard's copy"), ("", "the asset directory (cluster-id)")]
        {
            let machine = Machine::new();
            let facts = || {
                let mut facts = machine.facts("");
                if path.is_empty() {
                    facts.assets.files.insert(CLUSTER_ID.into(), File::public("uid"));
                }
                facts
            };
            machine.put("/etc/kubernetes/manifests/etcd.yaml", "");
            if !path.is_empty() {
                machine.put(path, "torn");
            }
            std::fs::create_dir_all(machine.path().join("var/lib/etcd")).unwrap();
            let found = etcd_data(&facts());
            assert!(said(&found)[0].contains(&format!("has no etcd data, and {who}")), "{found:?}");
            let remedy = found[0].remedy.clone().unwrap();
            for typed in ["mount the disk", "hoist recover --backup", "hoist start --new-cluster"] {
                assert!(remedy.contains(typed), "{remedy}");
            }
            let mut deliberate = facts();
            deliberate.new_cluster = true;
            assert!(etcd_data(&deliberate).is_empty());
            machine.put("/var/lib/etcd/member/hoist-began", "");
            assert_eq!(etcd_data(&facts()).len(), 1, "the mark is no data");
            machine.put("/var/lib/etcd/member/snap/db", "x");
            assert!(etcd_data(&facts()).is_empty());
        }
    }
}
