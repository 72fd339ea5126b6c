//! Approves the serving certificates of kubelets, and says so. `crate::api::approver` does it.

use kube::Client;

use super::metrics::Metrics;
use crate::api::approve::Reserved;
use crate::api::approver;
use crate::base::error::Result;
use crate::base::report::Reporter;

/// Approves, turn by turn.
pub struct Approver<'a> {
    reporter: &'a Reporter,
    metrics: &'a Metrics,
    approver: approver::Approver,
}

impl<'a> Approver<'a> {
    /// One that has judged nothing yet.
    pub fn new(reporter: &'a Reporter, metrics: &'a Metrics) -> Self {
        Self { reporter, metrics, approver: approver::Approver::default() }
    }

    /// Judges what is due of the requests that wait.
    ///
    /// # Errors
    /// The API server's word.
    pub async fn turn(&mut self, client: &Client, reserved: &Reserved) -> Result<()> {
        let news = |news: approver::News| {
            if news.is_approved {
                self.metrics.set(|counts| counts.approved += 1);
            }
            self.reporter.note(&news.text);
        };
        self.approver.turn(client, reserved, news).await
    }
}
