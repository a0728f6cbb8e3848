//! The admin API over a connection that stays open: what a command does, without what a process takes to start.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

pub struct Admin {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Admin {
    pub fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(socket).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            anyhow::Ok(sender)
        });
        let sender = sender.with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self { runtime, sender })
    }

    /// The document that the daemon answers.
    pub fn ask(&mut self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header(header::HOST, "mimeo")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.to_string().into()))?;
        let Self { runtime, sender } = self;
        let (status, text) = runtime.block_on(async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        })?;
        ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&text));
        Ok(serde_json::from_slice(&text)?)
    }
}
