//! How commands about the whole cluster reach it: with an admin's kubeconfig, from any machine.

use std::path::{Path, PathBuf};

use crate::api::{self, Admin};
use crate::base::error::{Error, Finding, Result};
use crate::base::input::{self, CONFIG_LIMIT};
use crate::desired::config;
use crate::operator::{TENANTS, describe};

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(super) struct Choice {
    /// The folder that `hoist render` wrote: its auth/kubeconfig is used
    #[arg(long, global = true, value_name = "DIR", default_value = config::ASSET_DIR)]
    pub(super) asset_dir: PathBuf,
    /// An admin's kubeconfig [default: auth/kubeconfig of the asset directory]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
}

impl Choice {
    /// A client, and where it leads.
    ///
    /// # Errors
    /// A kubeconfig that is none, or that asks for more than hoist lets it; an API server that does not answer.
    pub(super) async fn connect(&self) -> Result<Admin> {
        connect(&kubeconfig(&self.asset_dir, self.kubeconfig.as_deref())).await
    }
}

/// Which tenant of that cluster, if one is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Tenant {
    /// A hosted control plane of that cluster, in place of the cluster itself
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// The tenant's namespace
    #[arg(long, global = true, value_name = "NAMESPACE", default_value = TENANTS)]
    pub(super) tenant_namespace: String,
}

impl Tenant {
    /// The tenant that is meant, as its admin reaches it; otherwise the cluster itself.
    ///
    /// # Errors
    /// As [`Choice::connect`]; a tenant that has no kubeconfig yet.
    pub(super) async fn connect(&self, cluster: &Choice) -> Result<Admin> {
        self.connect_at(&kubeconfig(&cluster.asset_dir, cluster.kubeconfig.as_deref())).await
    }

    /// The same, with the kubeconfig of the cluster at `path`.
    ///
    /// # Errors
    /// As [`Tenant::connect`].
    pub(super) async fn connect_at(&self, path: &Path) -> Result<Admin> {
        let admin = connect(path).await?;
        let Some(name) = &self.tenant else { return Ok(admin) };
        api::admin(&describe::kubeconfig(&admin.client, &self.tenant_namespace, name).await?).await
    }
}

/// The kubeconfig that was named, or that of the asset directory.
pub(super) fn kubeconfig(asset_dir: &Path, named: Option<&Path>) -> PathBuf {
    named.map_or_else(|| asset_dir.join("auth/kubeconfig"), Path::to_path_buf)
}

/// A client with the kubeconfig at `path`, and where it leads.
///
/// # Errors
/// As [`Choice::connect`].
pub(super) async fn connect(path: &Path) -> Result<Admin> {
    let bytes = input::read(path, CONFIG_LIMIT).map_err(|unread| match unread.is_missing(path) {
        true => Error::Input(vec![
            unread
                .finding
                .remedy("--asset-dir names the folder that `hoist render` wrote, --kubeconfig an admin's kubeconfig"),
        ]),
        false => unread.into_error(path),
    })?;
    let place = path.display().to_string();
    let text = input::text(&place, &bytes).map_err(|finding| Error::Input(vec![finding]))?;
    crate::desired::kubeconfig::read(text).map_err(|why| {
        let finding = Finding::new(place, format!("is not a kubeconfig that hoist can use: {why}"));
        Error::Input(vec![
            finding.remedy("--kubeconfig names an admin's kubeconfig, such as auth/kubeconfig of the asset directory"),
        ])
    })?;
    let admin = api::admin(text).await?;
    api::reach(&admin).await?;
    Ok(admin)
}
