//! Whether a registry on this machine speaks plain HTTP or TLS: asked, since there may be either.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Who does not answer in this time is taken to speak plain HTTP, as most do on loopback.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first byte of what TLS answers to something that is not TLS: an alert record.
const TLS_ALERT: u8 = 21;

/// Whether the registry `host:port` speaks plain HTTP. A server for TLS answers plain HTTP with
/// an alert, or, to help people, with a plain 400, which no registry gives for this request.
pub async fn is_plain(registry: &str) -> bool {
    let address = if registry
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        registry.to_owned()
    } else {
        format!("{registry}:80")
    };
    let asking = async {
        let mut stream = TcpStream::connect(&address).await?;
        let question =
            format!("GET /v2/ HTTP/1.1\r\nhost: {registry}\r\nconnection: close\r\n\r\n");
        stream.write_all(question.as_bytes()).await?;
        let mut answer = Vec::new();
        // An alert is shorter than that, and what follows it may be a reset.
        let _ = stream.take(12).read_to_end(&mut answer).await;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => answer.first() != Some(&TLS_ALERT) && !answer.ends_with(b" 400"),
        Ok(Err(_)) | Err(_) => true,
    }
}
