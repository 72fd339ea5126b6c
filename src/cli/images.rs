//! `hoist images list`

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::error::Result;
use crate::base::report::Output;
use crate::desired::config::{self, Rendered};

/// The version of what `--output json` writes: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.images/v1";

/// `hoist images`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List every image of a cluster, one a line: what a registry of your own must have
    List(Args),
}

/// `hoist images list`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's declaration; `-` is standard input; without it, the images of `hoist config default`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lines, or one JSON object
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    let Command::List(args) = command;
    let cluster = match &args.config {
        Some(path) => config::load(path, Rendered::Never)?.cluster,
        None => config::parse("hoist config default", config::DEFAULT, Path::new("/"))?,
    };
    let images = cluster.images();
    let text = match args.output {
        Output::Json => format!("{}\n", json!({ "schema": SCHEMA, "images": images })),
        Output::Text => images.iter().map(|image| format!("{image}\n")).collect(),
    };
    super::print(out, &text)
}
