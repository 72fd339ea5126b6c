//! `hoist operator`

use std::path::PathBuf;

use crate::api;
use crate::base::error::{Error, Result};
use crate::base::input::{self, CONFIG_LIMIT};
use crate::operator::delete::OwnImage;
use crate::operator::run;

/// `hoist operator`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image of the pods that delete the folders of tenants that are gone: hoist's own, or one into which the node's
    /// binary is mounted
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Mount /var/lib/hoist/bin/hoist of the node into them
    #[arg(long)]
    mounts_binary: bool,
    /// What tells this operator from others
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "hoist-operator")]
    name: String,
    /// A kubeconfig to use in place of the pod's service account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let clients = match &args.kubeconfig {
        None => api::of_pod()?,
        Some(path) => {
            let bytes = input::read(path, CONFIG_LIMIT).map_err(|unread| unread.into_error(path))?;
            let place = path.display().to_string();
            let text = input::text(&place, &bytes).map_err(|finding| Error::Input(vec![finding]))?;
            api::of_kubeconfig(text).await?
        }
    };
    let own = OwnImage { image: args.image, mounts_binary: args.mounts_binary };
    run::run(clients, &args.name, own, super::stop()?).await
}
