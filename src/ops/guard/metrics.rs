//! guard's metrics for Prometheus, in its text format, under /metrics on loopback.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::decide::Cause;
use crate::base::exposition;

/// What there is to count.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// The bridge stands.
    pub raised: bool,
    /// The self-hosted API server says that it is ready.
    pub ready: bool,
    /// The copy of the bridge is whole.
    pub copy: bool,
    /// Raises, in the order of [`Cause::ALL`].
    pub raises: [u64; Cause::ALL.len()],
    /// How often the bridge was lowered.
    pub lowers: u64,
    /// Serving certificates of kubelets that were approved here.
    pub approved: u64,
    /// Alarms that etcd has raised.
    pub alarms: usize,
    /// Images of a raise that this machine has not.
    pub missing_images: usize,
    /// What could not be done.
    pub errors: u64,
    /// How long the self-hosted API server must be ready before the bridge is lowered.
    pub hold: Duration,
    /// When the bridge was last raised, in seconds since 1970.
    pub last_raise: i64,
    /// The first end of the copies of each certificate on this controller, in seconds since 1970, by the certificate's name.
    pub certificates: BTreeMap<String, i64>,
    /// The ends of the certificates that await a CA whose key is elsewhere, likewise.
    pub awaited: BTreeMap<String, i64>,
}

/// Shared between guard and whoever asks.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Counts>>);

impl Metrics {
    /// Counts.
    pub fn set(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn text(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            let _ = writeln!(text, "# HELP hoist_guard_{name} {help}\n# TYPE hoist_guard_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "hoist_guard_{name}{labels} {value}");
            }
        };
        let one = |value: f64| [(String::new(), value)];
        let flag = |value: bool| one(f64::from(u8::from(value)));
        metric("bridge_raised", "gauge", "Whether the bridge stands on this controller.", &flag(counts.raised));
        let ready = flag(counts.ready);
        metric("self_hosted_ready", "gauge", "Whether this controller's self-hosted API server is ready.", &ready);
        metric("copy_whole", "gauge", "Whether the copy of the bridge on the disk is whole.", &flag(counts.copy));
        let raises: Vec<_> = Cause::ALL
            .iter()
            .zip(counts.raises)
            .map(|(cause, count)| (format!("{{cause=\"{}\"}}", cause.name()), count as f64))
            .collect();
        metric("raises_total", "counter", "How often guard has raised the bridge.", &raises);
        metric("lowers_total", "counter", "How often guard has lowered the bridge.", &one(counts.lowers as f64));
        let approved = one(counts.approved as f64);
        metric("serving_certificates_approved_total", "counter", "Kubelets' serving certificates approved.", &approved);
        let (alarms, missing) = (one(counts.alarms as f64), one(counts.missing_images as f64));
        metric("etcd_alarms", "gauge", "Alarms that this controller's etcd has raised.", &alarms);
        metric("missing_images", "gauge", "Images of the bridge that this machine does not have.", &missing);
        metric("errors_total", "counter", "Acts of guard that failed.", &one(counts.errors as f64));
        let hold = one(counts.hold.as_secs_f64());
        metric("hold_seconds", "gauge", "How long the API server must be ready before the bridge is lowered.", &hold);
        let last = one(counts.last_raise as f64);
        metric("last_raise_timestamp_seconds", "gauge", "When guard last raised the bridge; 0 for never.", &last);
        let by_name = |ends: &BTreeMap<String, i64>| -> Vec<_> {
            ends.iter().map(|(name, end)| (format!("{{name=\"{name}\"}}"), *end as f64)).collect()
        };
        let help = "When the first copy of a certificate on this controller ends, in seconds since 1970.";
        metric("certificate_expiry_seconds", "gauge", help, &by_name(&counts.certificates));
        let help = "When a certificate ends that awaits a CA whose key is elsewhere, in seconds since 1970.";
        metric("certificate_awaited_expiry_seconds", "gauge", help, &by_name(&counts.awaited));
        text
    }

    /// Serves them, for ever, and what `wait` gives for other paths.
    ///
    /// # Errors
    /// An address that cannot be had.
    pub async fn serve<F: Future<Output = ()>>(
        self,
        address: SocketAddr,
        wait: impl Fn(&str) -> Option<F>,
    ) -> std::io::Error {
        exposition::serve(address, || self.text(), wait).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_prometheus() {
        let metrics = Metrics::default();
        metrics.set(|counts| (counts.raised, counts.raises[2], counts.hold) = (true, 3, Duration::from_secs(10)));
        metrics.set(|counts| counts.certificates = BTreeMap::from([("apiserver".into(), 1_814_443_200)]));
        metrics.set(|counts| counts.awaited = BTreeMap::from([("guard".into(), 1_814_443_201)]));
        let text = metrics.text();
        for line in [
            "# TYPE hoist_guard_raises_total counter",
            "hoist_guard_raises_total{cause=\"gone\"} 3",
            "hoist_guard_raises_total{cause=\"boot\"} 0",
            "hoist_guard_bridge_raised 1",
            "hoist_guard_hold_seconds 10",
            "hoist_guard_certificate_expiry_seconds{name=\"apiserver\"} 1814443200",
            "hoist_guard_certificate_awaited_expiry_seconds{name=\"guard\"} 1814443201",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}: {text}");
        }
    }
}
