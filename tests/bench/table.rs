//! The results as a table.

use crate::Results;
use crate::run::{Start, UnderLoad};

pub const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The ids of `start`'s steps, in their order.
const STEPS: [&str; 9] =
    ["install", "api", "apply", "node", "self-hosted", "required-pods", "hand-over", "lower", "prove"];

pub fn table(results: &Results) -> String {
    let Results { kubernetes, processors, hoist, kubeadm, hoist_under_load, render_seconds, binary_bytes } = results;
    let runs = hoist.len();
    let mut text = head(kubernetes, *processors, runs) + &columns(34, "");
    let mut compare = |what: &str, of: &dyn Fn(&Start) -> f64| {
        text.push_str(&compared(34, what, hoist.iter().map(of), kubeadm.iter().map(of)));
    };
    compare("API ready, s", &|start| start.api_ready);
    compare("both leaders, s", &|start| start.leaders);
    compare("exit, s", &|start| start.exit);
    compare("peak memory of the command, MiB", &|start| start.peak_memory_bytes as f64 / MEBIBYTE);

    let mut line = |what: &str, spread: Spread| text.push_str(&format!("{what:34}{spread}\n"));
    for step in STEPS {
        let of_step = hoist.iter().filter_map(|start| start.steps.get(step).copied());
        line(&format!("  step {step}, s"), Spread::of(of_step));
    }
    let load = |of: &dyn Fn(&UnderLoad) -> f64| Spread::of(hoist_under_load.iter().map(of));
    line("under load: requests", load(&|run| run.requests as f64));
    line("under load: failed requests", load(&|run| run.failed as f64));
    line("under load: longest gap, ms", load(&|run| run.longest_gap * 1000.0));
    line("under load: gap at the pivot, ms", load(&|run| run.longest_gap_at_pivot * 1000.0));
    line("under load: exit, s", load(&|run| run.exit));
    line("render, ms", Spread::of(render_seconds.iter().map(|seconds| seconds * 1000.0)));
    text.push_str(&format!("{:34}{:.1}\n", "binary, MiB", *binary_bytes as f64 / MEBIBYTE));
    text + &wanted(results)
}

/// What was measured, and what each of the figures is.
pub fn head(kubernetes: &str, processors: usize, runs: usize) -> String {
    format!("\nKubernetes {kubernetes}, {processors} processors, {runs} runs of each\nminimum / median / maximum\n\n")
}

/// The names of the columns behind one of this width.
pub fn columns(width: usize, title: &str) -> String {
    format!("{title:width$}{:24}{:24}{}\n", "hoist", "kubeadm", "ratio of medians")
}

/// A row of them; what kubeadm has nothing of, or none at all, has no ratio.
pub fn compared(
    width: usize,
    what: &str,
    ours: impl Iterator<Item = f64>,
    theirs: impl Iterator<Item = f64>,
) -> String {
    let (ours, theirs) = (Spread::of(ours), Spread::of(theirs));
    let shown = if theirs.median.is_nan() { String::new() } else { theirs.to_string() };
    let ratio = if theirs.median > 0.0 { format!("{:.2}", ours.median / theirs.median) } else { String::new() };
    let row = format!("{what:width$}{:24}{shown:24}{ratio}", ours.to_string());
    format!("{}\n", row.trim_end())
}

/// What is wanted of the medians (of failures and gaps: of the worst), and whether it was reached.
fn wanted(results: &Results) -> String {
    let Results { hoist, kubeadm, hoist_under_load, render_seconds, binary_bytes, .. } = results;
    let median = |runs: &[Start], of: &dyn Fn(&Start) -> f64| Spread::of(runs.iter().map(of)).median;
    let worst = |of: &dyn Fn(&UnderLoad) -> f64| Spread::of(hoist_under_load.iter().map(of)).most;
    let ours = |of: &dyn Fn(&Start) -> f64| median(hoist, of);
    let theirs = |of: &dyn Fn(&Start) -> f64| median(kubeadm, of);
    let rows = [
        ("start to done, s", ours(&|start| start.exit), 10.0),
        ("start to done / kubeadm's leaders", ours(&|start| start.exit) / theirs(&|start| start.leaders), 1.4),
        ("both leaders / kubeadm's", ours(&|start| start.leaders) / theirs(&|start| start.leaders), 1.4),
        ("API ready / kubeadm init's return", ours(&|start| start.api_ready) / theirs(&|start| start.exit), 0.8),
        ("failed requests, the worst run", worst(&|run| run.failed as f64), 0.0),
        ("gap at the pivot, the longest, ms", worst(&|run| run.longest_gap_at_pivot * 1000.0), 100.0),
        ("render, ms", Spread::of(render_seconds.iter().map(|seconds| seconds * 1000.0)).median, 20.0),
        ("peak memory of start, MB", ours(&|start| start.peak_memory_bytes as f64 / 1e6), 30.0),
        ("binary, MiB", *binary_bytes as f64 / MEBIBYTE, 12.0),
    ];
    verdicts(&rows)
}

/// What each of them measures, what that came to, and what it may be at most.
pub fn verdicts(rows: &[(&str, f64, f64)]) -> String {
    let mut text = format!("\n{:36}{:>10}{:>10}\n", "wanted", "at most", "measured");
    for (what, measured, limit) in rows {
        // Not a number is not reached, either.
        let verdict = if measured <= limit { "" } else { "  NOT REACHED" };
        text.push_str(&format!("{what:36}{limit:>10}{measured:>10.2}{verdict}\n"));
    }
    text
}

/// Of a handful of values, those that say most.
pub struct Spread {
    least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else {
            return Self { least: f64::NAN, median: f64::NAN, most: f64::NAN };
        };
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { least: *least, median, most: *most }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Three digits say enough of any of them.
        let digits = if self.most < 10.0 { 2 } else { usize::from(self.most < 100.0) };
        let digits =
            if [self.least, self.median, self.most].iter().all(|value| value.fract() == 0.0) { 0 } else { digits };
        write!(f, "{:.digits$} / {:.digits$} / {:.digits$}", self.least, self.median, self.most)
    }
}
