//! What clients that never stop asking see of something that is done to a controller.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::support::controller::Controller;

/// How long they go on afterwards.
const AFTERWARDS: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Experience {
    /// How long it took to do it, in seconds.
    pub took: f64,
    pub requests: usize,
    /// Each was made once.
    pub failed: usize,
    /// The longest time between two successes, in seconds.
    pub longest_gap: f64,
    /// The longest time between two requests, in seconds: by so much the machine alone may have made the gap longer.
    pub longest_pause: f64,
    #[serde(skip)]
    pub text: String,
}

/// Has clients ask before, meanwhile and afterwards.
pub fn during(controller: &Controller, act: &dyn Fn()) -> Experience {
    let traffic = controller.traffic();
    let begun = Instant::now();
    act();
    let took = begun.elapsed();
    std::thread::sleep(AFTERWARDS);
    let record = traffic.end().unwrap();
    Experience {
        took: took.as_secs_f64(),
        requests: record.exchanges.len(),
        failed: record.failures().count(),
        longest_gap: record.longest_gap().0.as_secs_f64(),
        longest_pause: record.longest_pause().as_secs_f64(),
        text: format!("done after {took:.1?}; {record}"),
    }
}
