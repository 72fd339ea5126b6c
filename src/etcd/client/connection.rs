//! The one way to a member: TLS with the client certificate that the API servers have.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::base::grpc::Connection;
use crate::base::probe;
use crate::desired::secrets::Tls;

/// etcd's CA, and the certificate and key that its clients show.
pub(crate) fn credentials(tls: &Tls) -> (&[u8], &[u8], &[u8]) {
    let file = |name: &str| tls.get(name).map(Vec::as_slice).unwrap_or_default();
    (file("etcd/ca.crt"), file("apiserver-etcd-client.crt"), file("apiserver-etcd-client.key"))
}

/// A connection with the client certificate that the API servers have. It takes as long as it takes: whoever asks for it
/// bounds it.
///
/// # Errors
/// Certificates that cannot be used; an etcd that does not answer, or shows the certificate of another CA or address.
pub async fn connect(address: SocketAddr, tls: &Tls) -> Result<Connection, String> {
    let (ca, certificate, key) = credentials(tls);
    let connector = probe::connector(ca, Some((certificate, key)), b"h2").map_err(|error| error.to_string())?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(ServerName::IpAddress(address.ip().into()), stream).await?;
        Connection::over(stream).await
    };
    connect.await.map_err(|error| error.to_string())
}
