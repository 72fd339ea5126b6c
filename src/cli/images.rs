//! `hoist images list`, `hoist image save`

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::output::{self, Output};
use crate::base::error::{Error, Result};
use crate::base::files::{self, File};
use crate::check::preflight;
use crate::desired::config::{self, Rendered};
use crate::ops::image::{Image, Name};

/// The version of what `--output json` writes: fields may be added to it, never changed or taken away.
const SCHEMA: &str = "hoist.images/v1";

/// `hoist images`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List every image of a cluster, one a line: the images that a registry of your own must have
    List(Args),
    /// Write hoist itself as an image, an OCI archive: what `ctr images import` and `docker load` take
    Save(Save),
}

/// `hoist image save`
#[derive(Debug, clap::Args)]
pub struct Save {
    /// The file to write; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name that it is imported under; `images.hoist` of cluster.yaml is to have the same
    #[arg(long, value_name = "IMAGE", value_parser = Name::parse, default_value_t)]
    name: Name,
}

/// `hoist images list`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The cluster's declaration; `-` is standard input; without it, the images of `hoist config default`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the list is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::List(args) => list(args, out),
        Command::Save(args) => save(args, out),
    }
}

/// The binary that runs, whatever has become of its file since.
fn save(args: &Save, out: &mut dyn Write) -> Result<()> {
    let own = Path::new("/proc/self/exe");
    let findings = preflight::not_static(&std::env::current_exe().unwrap_or_else(|_| own.to_owned()));
    if !findings.is_empty() {
        return Err(Error::Input(findings));
    }
    let binary = fs::read(own).map_err(|error| Error::io("read", own, error))?;
    let commit = option_env!("HOIST_BUILD_COMMIT");
    let image = Image { binary: &binary, arch: std::env::consts::ARCH, commit, name: &args.name };
    let archive = image.archive().map_err(|error| Error::failed("make the image", error))?;
    if args.file == Path::new("-") {
        return out.write_all(&archive).map_err(|error| Error::failed("write to standard output", error));
    }
    files::write(&args.file, &File::public(archive))?;
    super::print(out, &format!("{} has the image {}\n", args.file.display(), args.name))
}

fn list(args: &Args, out: &mut dyn Write) -> Result<()> {
    let cluster = match &args.config {
        Some(path) => config::load(path, Rendered::Never)?.cluster,
        None => config::parse("hoist config default", config::DEFAULT, Path::new("/"))?,
    };
    let images = cluster.images();
    let text = match args.output {
        Output::Json => format!("{}\n", json!({ "schema": SCHEMA, "images": images })),
        Output::Yaml => output::yaml(&json!({ "schema": SCHEMA, "images": images }))?,
        Output::Text => images.iter().map(|image| format!("{image}\n")).collect(),
    };
    super::print(out, &text)
}
