//! Whether a start makes progress. A pod that crashes repeatedly passes the same few states again and again, which is
//! no progress.

use std::time::Duration;

use tokio::time::Instant;

use super::decide::Decision;
use crate::base::progress::{Sights, kind};
use crate::plane::hand_over::Observed;

/// Everything that was seen in the course of a run, and when the last new thing was.
pub(super) struct Progress(Sights);

impl Progress {
    pub(super) fn new(now: Instant) -> Self {
        Self(Sights::new(now))
    }

    /// Notes what is seen now, and says for how long nothing has been new. `pulled` are the bytes of images that are
    /// being pulled.
    pub(super) fn note(&mut self, observed: &Observed, decision: &Decision, pulled: u64, now: Instant) -> Duration {
        let mut sights = vec![
            format!("bridge {:?}", observed.bridge),
            format!("api {}", observed.api_said),
            format!("self-hosted {}", observed.self_hosted_said),
            format!("pulled {pulled}"),
        ];
        if let Decision::Do(step, acts) = decision {
            sights.push(format!("{step:?} {acts:?}"));
        }
        if let Some(view) = &observed.view {
            sights.push(format!("node {:?}", view.node));
            // Not by whom: whoever crashes over and over comes back under another name.
            sights.extend(view.leases.iter().map(|(name, lease)| format!("{name} {}", lease.holder.is_empty())));
            // By workload: a pod that is made anew is no progress by itself.
            let pods = view.pods.values().flatten();
            sights.extend(pods.map(|pod| format!("{} {} {}", pod.workload, pod.ready, kind(&pod.reason))));
        }
        self.0.note(sights, now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::observe::ClusterView;
    use crate::base::progress::is_over;
    use crate::ops::start::decide::Step;
    use crate::plane::hand_over::tests;

    #[test]
    fn only_what_is_new_is_progress() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let wait = Decision::Wait(Step::Api, "x".into());
        let mut progress = Progress::new(begun);
        let mut observed = tests::seen();
        let stuck = |progress: &mut Progress, observed: &Observed, pulled, seconds| {
            progress.note(observed, &wait, pulled, at(seconds)).as_secs()
        };
        assert_eq!(stuck(&mut progress, &observed, 0, 0), 0);
        assert_eq!(stuck(&mut progress, &observed, 0, 10), 10);
        assert_eq!(stuck(&mut progress, &observed, 5, 20), 0, "a pull that advances");
        assert_eq!(stuck(&mut progress, &observed, 5, 30), 10);
        observed.api_said = "500".into();
        assert_eq!(stuck(&mut progress, &observed, 5, 40), 0);
        observed.api_said = "connection refused".into();
        assert_eq!(stuck(&mut progress, &observed, 5, 50), 10, "back where it was is no progress");
    }

    /// The limits as the loop of `start` holds them against what is noted here.
    fn ends_at(observe: impl Fn(u64) -> (Observed, u64), progress_timeout: u64, timeout: u64) -> Option<u64> {
        let begun = Instant::now();
        let mut progress = Progress::new(begun);
        let wait = Decision::Wait(Step::SelfHosted, "x".into());
        (0..10_000).find(|second| {
            let (observed, pulled) = observe(*second);
            let stuck = progress.note(&observed, &wait, pulled, begun + Duration::from_secs(*second));
            is_over(
                Duration::from_secs(*second),
                stuck,
                Duration::from_secs(timeout),
                Duration::from_secs(progress_timeout),
            )
        })
    }

    /// How the cluster looks with an API server's pod that is in `reason`, and so many ready pods of others.
    fn seen(reason: &str, ready: usize) -> Observed {
        let mut observed = tests::seen();
        let mut pods = vec![tests::pod("kube-apiserver", false)];
        pods[0].reason = format!("kube-apiserver: {reason}");
        pods.extend((0..ready).map(|number| tests::pod(&format!("user-{number}"), true)));
        let pods = BTreeMap::from([("kube-system".to_owned(), pods)]);
        observed.view = Some(ClusterView { pods, ..ClusterView::default() });
        observed
    }

    #[test]
    fn a_start_ends_when_nothing_new_was_seen_for_so_long() {
        assert_eq!(ends_at(|_| (seen("Pending", 0), 0), 300, 1800), Some(301));
    }

    #[test]
    fn a_slow_pull_extends_the_limit_and_one_that_stalls_does_not() {
        let slow = |second: u64| (seen("ContainerCreating", 0), second.min(1000) / 100);
        assert_eq!(ends_at(slow, 300, 3600), Some(1301), "300 s after the last byte");
    }

    #[test]
    fn a_changing_pod_and_a_rising_count_of_ready_ones_extend_the_limit() {
        let changing = |second: u64| {
            let states = ["Pending", "ContainerCreating", "ErrImagePull: x", "runs, and is not ready yet"];
            (seen(states[usize::try_from(second / 200).unwrap().min(3)], 0), 0)
        };
        assert_eq!(ends_at(changing, 300, 3600), Some(901));
        let rising = |second: u64| (seen("Pending", usize::try_from(second / 200).unwrap().min(5)), 0);
        assert_eq!(ends_at(rising, 300, 3600), Some(1301));
    }

    #[test]
    fn a_pod_that_goes_in_circles_does_not_extend_the_limit() {
        let circles = |second: u64| {
            let crash = format!("CrashLoopBackOff: back-off {second}s");
            (seen(if (second / 20).is_multiple_of(2) { "runs, and is not ready yet" } else { &crash }, 0), 0)
        };
        assert_eq!(ends_at(circles, 300, 3600), Some(321), "300 s after the second of its states");
    }

    #[test]
    fn the_total_limit_stands_over_all_progress() {
        assert_eq!(ends_at(|second| (seen("Pending", 0), second), 300, 1800), Some(1801));
    }

    #[test]
    fn a_pod_that_crashes_over_and_over_is_no_progress() {
        assert_eq!(kind("kube-apiserver: CrashLoopBackOff: back-off 40s restarting"), "CrashLoopBackOff");
        assert_eq!(kind("kube-apiserver: CrashLoopBackOff: back-off 80s restarting"), "CrashLoopBackOff");
        assert_eq!(kind("Pending"), "Pending");
    }
}
