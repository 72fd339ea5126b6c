//! `hoist version`

use std::io::Write;

use serde::Serialize;

use super::output::{self, Output};
use crate::base::error::{Error, Result};
use crate::base::report::EVENT_SCHEMA;
use crate::desired::config;

/// `hoist version`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How it is shown
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

/// What this binary is. Fields may be added to it, never changed or taken away.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    /// The commit that was checked out when it was built, where that is known: see build.rs.
    #[serde(skip_serializing_if = "Option::is_none")]
    git_commit: Option<&'static str>,
    rustc: &'static str,
    platform: &'static str,
    kubernetes: Kubernetes,
    event_schema: &'static str,
}

#[derive(Serialize)]
struct Kubernetes {
    default: &'static str,
    supported: Vec<String>,
}

impl Version {
    fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            git_commit: option_env!("HOIST_BUILD_COMMIT"),
            rustc: env!("HOIST_BUILD_RUSTC"),
            platform: env!("HOIST_BUILD_TARGET"),
            kubernetes: Kubernetes { default: config::KUBERNETES_VERSION, supported: config::supported_versions() },
            event_schema: EVENT_SCHEMA,
        }
    }
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let version = Version::this();
    let text = match args.output {
        Output::Json => serde_json::to_string(&version).map_err(|error| Error::failed("write the version", error))?,
        Output::Yaml => output::yaml(&version)?.trim_end().to_owned(),
        Output::Text => {
            let commit = version.git_commit.map(|commit| format!(", commit {commit}")).unwrap_or_default();
            format!(
                "hoist {}{commit}\nbuilt by {} for {}\nKubernetes {} ({} if cluster.yaml names none)",
                version.version,
                version.rustc,
                version.platform,
                version.kubernetes.supported.join(", "),
                version.kubernetes.default
            )
        }
    };
    super::print(out, &(text + "\n"))
}
