//! The HTTP gate: a GET whose answer must have a status of 2xx.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for one answer: a server that hangs is asked again.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Ask once; the error says why that is no success.
pub async fn get(url: &str, limit: Duration) -> Result<(), String> {
    let answer = timeout(limit.min(MAX_WAIT), ask(url)).await;
    match answer.unwrap_or_else(|_| Err("no answer in time".into()))? {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answers {status}")),
    }
}

async fn ask(url: &str) -> Result<StatusCode, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let uri: Uri = url.parse().map_err(|e| text(&e))?;
    let authority = uri.authority().ok_or("it names no host")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(|e| text(&e))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("mimeo/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|e| text(&e))?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // Nobody moves the bytes but this. When it has ended, the answer is there, or never will be.
        _ = connection => answer.await,
    };
    answer.map(|answer| answer.status()).map_err(|e| text(&e))
}
