//! `hoist validate`

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;
use time::OffsetDateTime;

use super::output::{self, Output};
use crate::base::error::{Error, Finding, Result, Severity};
use crate::check::validate;
use crate::desired::assets::AssetSet;

/// The version of what `--output json` writes: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.findings/v1";

/// `hoist validate`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR")]
    asset_dir: PathBuf,
    /// How findings are written
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// Writes what it finds, and returns the exit code: 0 without errors, 3 with any.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<u8> {
    let findings = match AssetSet::load(&args.asset_dir) {
        Ok(assets) => validate::validate(&assets, &args.asset_dir, OffsetDateTime::now_utc()),
        Err(Error::Input(findings)) => findings,
        Err(error) => return Err(error),
    };
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let text = match args.output {
        Output::Json => format!("{}\n", json(&findings)),
        Output::Yaml => output::yaml(&json(&findings))?,
        Output::Text => {
            let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
            format!("{lines}{}: {}\n", args.asset_dir.display(), summary(errors, findings.len() - errors))
        }
    };
    super::print(out, &text)?;
    Ok(if errors > 0 { Error::Input(findings).exit_code() } else { 0 })
}

fn summary(errors: usize, warnings: usize) -> String {
    let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    }
}

fn json(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        json!({
            "severity": match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            "file": finding.place,
            "line": finding.position.map(|(line, _)| line),
            "column": finding.position.map(|(_, column)| column),
            "message": finding.message,
            "remedy": finding.remedy,
        })
    };
    json!({ "schema": SCHEMA, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}
