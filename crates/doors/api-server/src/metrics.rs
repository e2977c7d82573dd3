//! The metrics door (`--metrics-addr`): `GET /metrics` in Prometheus' text form, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of a request.
const HEAD: usize = 8 << 10;

/// Makes the text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Serves until `stop` turns true.
pub async fn serve(listener: TcpListener, metrics: Metrics, mut stop: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((client, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    // A client that is too slow or leaves gets nothing.
                    let _ = tokio::time::timeout(PATIENCE, answer(client, metrics)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer(mut client: TcpStream, metrics: Metrics) -> std::io::Result<()> {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = client.read(&mut part).await?;
        head.extend_from_slice(&part[..n]);
        if n == 0 || head.len() > HEAD {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match (method, path.split('?').next().unwrap_or_default()) {
        ("GET" | "HEAD", "/metrics") => {
            let made = tokio::task::spawn_blocking(move || metrics()).await;
            ("200 OK", made.unwrap_or_default())
        }
        (_, "/metrics") => ("405 Method Not Allowed", String::new()),
        _ => ("404 Not Found", "404 page not found\n".to_owned()),
    };
    let length = body.len();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        client.write_all(body.as_bytes()).await?;
    }
    client.shutdown().await
}
