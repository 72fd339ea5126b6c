//! The results of the checks: for `start`, and for `hoist preflight` as text and JSON.

use serde_json::{Value, json};

use super::{CHECKS, Check, ROOT};
use crate::base::error::{Error, Finding, Result, Severity};

/// The version of what is written as JSON: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.preflight/v1";

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran, and found this.
    Ran(Vec<Finding>),
    /// The user wants it so.
    Skipped,
    /// It would mislead: see [`Report::results`] for the check that failed before.
    NotRun,
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Ran(found) if found.is_empty() => "ok",
            Self::Ran(found) if found.iter().any(|finding| finding.severity == Severity::Error) => "error",
            Self::Ran(_) => "warning",
            Self::Skipped => "skipped",
            Self::NotRun => "not-run",
        }
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Ran(found) => found,
            Self::Skipped | Self::NotRun => &[],
        }
    }
}

/// What came of all of them.
pub struct Report {
    /// In the catalogue's order.
    pub results: Vec<(&'static Check, Outcome)>,
}

impl Report {
    /// Whether `start` would go on.
    pub fn is_ready(&self) -> bool {
        self.results.iter().all(|(_, outcome)| outcome.word() != "error")
    }

    /// What is worth saying although nothing stands in the way: warnings, and which checks were skipped.
    ///
    /// # Errors
    /// Everything that stands in the way, and the warnings beside it.
    pub fn verdict(self) -> Result<Vec<String>> {
        let named = |check: &Check, finding: &Finding| {
            let place = if finding.place.is_empty() {
                check.name.to_owned()
            } else {
                format!("{}: {}", check.name, finding.place)
            };
            Finding { place, ..finding.clone() }
        };
        let mut findings: Vec<_> = self
            .results
            .iter()
            .flat_map(|(check, outcome)| outcome.findings().iter().map(|finding| named(check, finding)))
            .collect();
        if !self.is_ready() {
            // What stands in the way comes first.
            findings.sort_by_key(|finding| finding.severity == Severity::Warning);
            return Err(Error::Preflight(findings.into_iter().chain(self.way_out()).collect()));
        }
        let skipped: Vec<_> = self.named("skipped").collect();
        let skipped =
            (!skipped.is_empty()).then(|| format!("preflight checks that were skipped: {}", skipped.join(", ")));
        Ok(findings.iter().map(ToString::to_string).chain(skipped).collect())
    }

    fn named<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'static str> + 'a {
        self.results.iter().filter(move |(_, outcome)| outcome.word() == word).map(|(check, _)| check.name)
    }

    /// How to go on in spite of all that stands in the way, if that can be.
    fn way_out(&self) -> Option<Finding> {
        let names: Vec<_> = self.named("error").filter(|name| *name != ROOT).collect();
        let flag = format!("--ignore-preflight-errors {}", names.join(","));
        let it = if names.len() == 1 { "it" } else { "them" };
        (!names.is_empty()).then(|| Finding::new(flag, format!("continues in spite of {it}, if you know better")))
    }

    /// For people: a line for each check, what it found below.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let width = width();
        for (check, outcome) in &self.results {
            text += &format!("{:<8} {:<width$}  {}\n", outcome.word(), check.name, check.title);
            for finding in outcome.findings() {
                let finding = match &*finding.place {
                    "" => finding.to_string().trim_start_matches(": ").to_owned(),
                    _ => finding.to_string(),
                };
                text += &format!("         {}\n", finding.replace('\n', "\n         "));
            }
        }
        let count = |word| self.named(word).count();
        let (errors, warnings, skipped) = (count("error"), count("warning"), count("skipped"));
        let verdict = if self.is_ready() { "this machine is ready" } else { "this machine is not ready" };
        text += &format!("{verdict}: {errors} errors, {warnings} warnings, {skipped} skipped\n");
        if let Some(way_out) = self.way_out() {
            text += &format!("`hoist start {}` {}\n", way_out.place, way_out.message);
        }
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let finding = |finding: &Finding| {
            json!({
                "severity": word(finding.severity),
                "place": finding.place,
                "message": finding.message,
                "remedy": finding.remedy,
            })
        };
        let check = |(check, outcome): &(&'static Check, Outcome)| {
            let mut described = describe(check);
            described["outcome"] = outcome.word().into();
            described["findings"] = outcome.findings().iter().map(finding).collect();
            described
        };
        json!({
            "schema": SCHEMA,
            "ready": self.is_ready(),
            "checks": self.results.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

/// All that there is to check: for people, and for programs.
pub fn list() -> (String, Value) {
    let width = width();
    let line = |check: &Check| format!("{:<width$}  {:<7}  {}\n", check.name, word(check.severity), check.title);
    let json = json!({"schema": SCHEMA, "checks": CHECKS.iter().map(describe).collect::<Vec<_>>()});
    (CHECKS.iter().map(line).collect(), json)
}

fn describe(check: &Check) -> Value {
    json!({"name": check.name, "title": check.title, "severity": word(check.severity)})
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn width() -> usize {
    CHECKS.iter().map(|check| check.name.len()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let error = Finding::new("/proc/swaps", "swap is on").remedy("`swapoff -a`");
        let outcomes = [
            Outcome::Ran(Vec::new()),
            Outcome::Ran(vec![error]),
            Outcome::Ran(vec![Finding::new("", "is small").warning()]),
            Outcome::Skipped,
            Outcome::NotRun,
        ];
        Report { results: CHECKS.iter().zip(outcomes).collect() }
    }

    #[test]
    fn people_see_the_worst_with_its_remedy() {
        let (report, name) = (report(), CHECKS[1].name);
        let text = report.to_text();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with(&format!("ok       {}", CHECKS[0].name)), "{text}");
        assert!(lines[1].starts_with(&format!("error    {name}")), "{text}");
        assert_eq!(lines[2..4], ["         /proc/swaps: swap is on", "             `swapoff -a`"], "{text}");
        assert_eq!(lines[5], "         warning: is small", "{text}");
        assert!(lines[6].starts_with("skipped") && lines[7].starts_with("not-run"), "{text}");
        assert_eq!(lines[8], "this machine is not ready: 1 errors, 1 warnings, 1 skipped");
        assert!(lines[9].starts_with(&format!("`hoist start --ignore-preflight-errors {name}` continues")), "{text}");
    }

    #[test]
    fn programs_see_every_check() {
        let json = report().to_json();
        assert_eq!((&json["schema"], &json["ready"]), (&"hoist.preflight/v1".into(), &false.into()));
        let outcomes: Vec<_> = json["checks"].as_array().unwrap().iter().map(|check| &check["outcome"]).collect();
        assert_eq!(outcomes, ["ok", "error", "warning", "skipped", "not-run"]);
        let expected =
            json!([{"severity": "error", "place": "/proc/swaps", "message": "swap is on", "remedy": "`swapoff -a`"}]);
        assert_eq!(json["checks"][1]["findings"], expected);
        assert_eq!(list().1["checks"].as_array().unwrap().len(), CHECKS.len());
        assert_eq!(list().0.lines().count(), CHECKS.len());
    }
}
