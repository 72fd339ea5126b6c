//! `hoist preflight`, and the options that it shares with `hoist start`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::output::{self, Output};
use crate::base::error::{Error, Result};
use crate::check::preflight;
use crate::desired::assets::{self, AssetSet};
use crate::node::system;

/// Which checks the user knows better than.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// Checks to leave out; `hoist preflight --list` shows their names
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = preflight::known)]
    skip_preflight: Vec<&'static str>,
    /// Checks whose errors are shown as warnings; `all` is every check
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = known_or_all)]
    ignore_preflight_errors: Vec<&'static str>,
}

impl From<Choice> for preflight::Choice {
    fn from(choice: Choice) -> Self {
        Self { skip: choice.skip_preflight, ignore: choice.ignore_preflight_errors, new_cluster: false }
    }
}

fn known_or_all(name: &str) -> Result<&'static str, String> {
    if name.eq_ignore_ascii_case(preflight::ALL) { Ok(preflight::ALL) } else { preflight::known(name) }
}

/// `hoist preflight`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder that `hoist render` wrote
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    asset_dir: Option<PathBuf>,
    /// List the checks, and make none
    #[arg(long)]
    list: bool,
    /// The kubelet's folder of static pods
    #[arg(long, value_name = "DIR", default_value = "/etc/kubernetes/manifests")]
    pod_manifest_path: PathBuf,
    /// Which controller of cluster.yaml this machine is [default: the one whose address this machine has]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    #[command(flatten)]
    choice: Choice,
    /// How the result is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

pub(super) async fn run(args: Args, out: &mut dyn Write) -> Result<u8> {
    let print = |out: &mut dyn Write, text: &str, json: &serde_json::Value| match args.output {
        Output::Text => super::print(out, text),
        Output::Json => super::print(out, &format!("{json:#}\n")),
        Output::Yaml => super::print(out, &output::yaml(json)?),
    };
    let Some(asset_dir) = args.asset_dir.filter(|_| !args.list) else {
        let (text, json) = preflight::list();
        print(out, &text, &json)?;
        return Ok(0);
    };
    let asset_dir = assets::absolute(&asset_dir)?;
    let assets = AssetSet::load(&asset_dir)?;
    let cluster = assets.cluster(&asset_dir)?;
    let host = system::host(Path::new("/"), &args.pod_manifest_path);
    let controller = preflight::controller(&cluster, args.node_name.as_deref(), &host.world().addresses()?)?;
    let report = preflight::check(&host, &assets, &cluster, controller, &args.choice.into()).await?;
    print(out, &report.to_text(), &report.to_json())?;
    // The findings have been shown: only the code is left to say.
    Ok(if report.is_ready() { 0 } else { Error::Preflight(Vec::new()).exit_code() })
}
