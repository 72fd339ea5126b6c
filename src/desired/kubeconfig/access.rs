//! The credentials of a kubeconfig, inline or in files, for a client. kube supports more than hoist lets a kubeconfig
//! ask for: programs that make credentials, and the CAs that the machine trusts.

use std::fs;
use std::path::Path;

use hyper::header::{AUTHORIZATION, HeaderValue};
use kube::Config;
use kube::client::ConfigExt;
use kube::client::middleware::ExtraHeadersLayer;
use kube::config::{AuthInfo, Kubeconfig};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;

use crate::base::error::{Error, Result};
use crate::base::input;
use crate::base::probe;

/// How a client shows who it is, and knows whom it talks to.
pub struct Access {
    /// TLS that trusts the kubeconfig's CA alone, and shows its client certificate if it has one.
    pub tls: ClientConfig,
    /// The name that the server's certificate must have, where that is not the one in its address.
    pub server_name: Option<ServerName<'static>>,
    /// What each request shows: a token, or who acts.
    pub headers: ExtraHeadersLayer,
}

impl Access {
    /// That of a kubeconfig's current context.
    ///
    /// # Errors
    /// Credentials that it gets elsewhere than from itself and from files, or that no request could show.
    pub fn of(config: &Config) -> Result<Self> {
        let server_name = config.tls_server_name.clone().map(ServerName::try_from).transpose().map_err(failed)?;
        let tls = tls(config)?;
        let mut config = config.clone();
        config.headers.extend(authorization(&config.auth_info)?.map(|value| (AUTHORIZATION, value)));
        let headers = config.extra_headers_layer().map_err(failed)?;
        Ok(Self { tls, server_name, headers })
    }
}

/// Whether a client can be made of a kubeconfig.
pub(super) fn is_usable(kubeconfig: Kubeconfig) -> Result<()> {
    let config = Config::try_from(kubeconfig).map_err(failed)?;
    Access::of(&config).map(drop)
}

/// TLS that trusts the kubeconfig's CA alone, and shows its client certificate if it has one.
fn tls(config: &Config) -> Result<ClientConfig> {
    let AuthInfo { client_certificate, client_certificate_data, client_key, client_key_data, .. } = &config.auth_info;
    let user = &config.auth_info;
    if user.exec.is_some() || user.auth_provider.is_some() {
        return Err(failed("it would run a program to get credentials: hoist accepts them only in the file"));
    }
    if config.accept_invalid_certs {
        return Err(failed("it trusts any server (insecure-skip-tls-verify)"));
    }
    let roots = config.root_cert.as_deref().ok_or_else(|| failed("it names no CA (certificate-authority-data)"))?;
    let roots = roots.iter().map(|der| der.clone().into());
    let certificate = held("client-certificate", client_certificate_data.as_deref(), client_certificate.as_deref())?;
    let key = client_key_data.as_ref().map(ExposeSecret::expose_secret);
    let key = held("client-key", key, client_key.as_deref())?;
    probe::client_config(roots, certificate.as_deref().zip(key.as_deref()))
}

/// What the kubeconfig holds, or the file that it names.
fn held(what: &str, data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>> {
    match (data.filter(|data| !data.is_empty()), file.filter(|file| !file.is_empty())) {
        // What it holds may be a secret, and so is not told.
        (Some(data), _) => match input::base64(data) {
            Some(data) => Ok(Some(data)),
            None => Err(failed(format!("{what}-data is not base64"))),
        },
        (None, Some(file)) => fs::read(file).map(Some).map_err(|error| Error::io("read", Path::new(file), error)),
        (None, None) => Ok(None),
    }
}

/// The header that shows the kubeconfig's token, if it has one.
fn authorization(user: &AuthInfo) -> Result<Option<HeaderValue>> {
    let token = match (&user.token, &user.token_file) {
        (Some(token), _) => token.expose_secret().to_owned(),
        (None, Some(file)) => fs::read_to_string(file).map_err(|error| Error::io("read", Path::new(file), error))?,
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim_end()))
        .map_err(|_| failed("its token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn failed(reason: impl std::fmt::Display) -> Error {
    Error::failed("use the kubeconfig", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_and_kept_from_logs() {
        let mut user = AuthInfo { token: Some("abc\n".to_owned().into()), ..AuthInfo::default() };
        let value = authorization(&user).unwrap().unwrap();
        assert_eq!((value.to_str().unwrap(), value.is_sensitive()), ("Bearer abc", true));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "def\n").unwrap();
        user = AuthInfo { token_file: Some(file.to_str().unwrap().to_owned()), ..AuthInfo::default() };
        assert_eq!(authorization(&user).unwrap().unwrap().to_str().unwrap(), "Bearer def");
        user.token = Some("a\nb".to_owned().into());
        let error = authorization(&user).unwrap_err().to_string();
        assert!(error.contains("characters") && !error.contains("a\nb"), "{error}");
    }
}
