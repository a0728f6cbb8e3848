//! The client side of the admin API: one connection, one command.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Global;
use crate::admin::types::ErrorInfo;

/// Longest line of a streamed answer, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Where a daemon's admin API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AdminAddr {
    pub socket: PathBuf,
}

impl FromStr for AdminAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("the path is missing; write unix:PATH".into()),
            Some(path) => Ok(Self { socket: path.into() }),
            None => Err("the admin API is served on a Unix socket only, not over TCP; write unix:PATH".into()),
        }
    }
}

/// A refusal by the daemon.
#[derive(Debug)]
struct Refusal(ErrorInfo);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.error)?;
        self.0.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl std::error::Error for Refusal {}

/// What the daemon refused, as the error of a command.
pub(super) fn refused(info: ErrorInfo) -> anyhow::Error {
    Refusal(info).into()
}

/// A connection to the daemon.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    global: Global,
}

impl Client {
    pub async fn connect(global: &Global) -> Result<Self> {
        Ok(Self { sender: Self::open(global).await?, global: global.clone() })
    }

    async fn open(global: &Global) -> Result<SendRequest<Full<Bytes>>> {
        let socket = global.admin.as_ref().map_or_else(|| global.data.join("admin.sock"), |admin| admin.socket.clone());
        let stream = UnixStream::connect(&socket).await.map_err(|e| unreachable_daemon(&socket, &e, global))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context(LOST)?;
        // Its errors come back through the requests.
        tokio::spawn(connection);
        Ok(sender)
    }

    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        document(self.ask(Method::GET, path, Bytes::new()).await?).await
    }

    /// An answer that is no document.
    pub async fn get_text(&mut self, path: &str) -> Result<String> {
        let response = self.ask(Method::GET, path, Bytes::new()).await?;
        let text = response.into_body().collect().await.context(LOST)?.to_bytes();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// `body` by another method.
    pub async fn send<T: DeserializeOwned>(&mut self, method: Method, path: &str, body: &impl Serialize) -> Result<T> {
        document(self.ask(method, path, serde_json::to_vec(body)?.into()).await?).await
    }

    /// An answer that comes line by line.
    pub async fn get_lines(&mut self, path: &str) -> Result<Lines> {
        Ok(Lines::new(self.ask(Method::GET, path, Bytes::new()).await?))
    }

    pub async fn post_lines(&mut self, path: &str, body: &impl Serialize) -> Result<Lines> {
        Ok(Lines::new(self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await?))
    }

    /// The answer, if it is not a refusal.
    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        // On another thread the connection may not know yet that the answer before was read to its end.
        if self.sender.ready().await.is_err() {
            // The daemon closes what is idle, as while names are read from a terminal.
            self.sender = Self::open(&self.global).await?;
        }
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "mimeo")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = self.sender.send_request(request).await.context(LOST)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().collect().await.context(LOST)?.to_bytes();
        match serde_json::from_slice(&text) {
            Ok(info) => Err(refused(info)),
            Err(_) => bail!("the daemon answered {status}: {}", String::from_utf8_lossy(&text)),
        }
    }
}

const LOST: &str = "the connection to the daemon was lost; see the daemon's log";

fn unreachable_daemon(socket: &Path, error: &std::io::Error, global: &Global) -> anyhow::Error {
    let socket = socket.display();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return anyhow!("no permission to use the daemon's socket unix:{socket}; run as root or as the daemon's user");
    }
    let start = format!("start it with `mimeo serve --data {}`", global.data.display());
    anyhow!("cannot reach the daemon at unix:{socket} ({error}); is it running? {start}")
}

async fn document<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let text = response.into_body().collect().await.context(LOST)?.to_bytes();
    serde_json::from_slice(&text).context("the daemon's answer cannot be read; are both of the same version?")
}

/// JSON documents, one a line.
pub(super) struct Lines {
    body: Incoming,
    text: BytesMut,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), text: BytesMut::new() }
    }

    /// The next one; `None` after the last.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.text.iter().position(|b| *b == b'\n') {
                let line = self.text.split_to(end + 1);
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.text.len() > MAX_LINE {
                bail!("the daemon's answer has a line of more than {MAX_LINE} bytes");
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => self.text.extend_from_slice(frame.context(LOST)?.data_ref().unwrap_or(&Bytes::new())),
            }
        }
    }
}

/// The error for a streamed answer that ends before its last line.
pub(super) fn broken_off() -> anyhow::Error {
    anyhow!(LOST)
}

/// `path`, of which those are meant that match `select`, else all.
pub(super) fn selecting(path: &str, select: Option<&str>) -> String {
    select.map_or_else(|| path.to_owned(), |select| format!("{path}?select={}", escape(select)))
}

/// `text` as one component of a path or query.
pub(super) fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~@".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Also where the connection has a thread of its own, which sees the end of an answer later than who asked.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_connection_answers_one_request_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(dir.path().join("admin.sock")).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
            while let Ok(n @ 1..) = stream.read(&mut piece).await {
                asked.extend_from_slice(&piece[..n]);
                if asked.ends_with(b"\r\n\r\n") {
                    asked.clear();
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await.unwrap();
                }
            }
        });
        let global = Global { json: false, admin: None, data: dir.path().to_owned() };
        let mut client = Client::connect(&global).await.unwrap();
        for _ in 0..5000 {
            assert!(client.get::<Vec<String>>("/").await.unwrap().is_empty());
        }
        drop(client);
        server.await.unwrap();
    }

    #[test]
    fn only_unix_sockets_are_addresses() {
        assert_eq!("unix:/a b".parse::<AdminAddr>().unwrap().socket, PathBuf::from("/a b"));
        for bad in ["unix:", "127.0.0.1:80", "http://127.0.0.1:80", ""] {
            assert!(bad.parse::<AdminAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selector_becomes_a_query() {
        assert_eq!(selecting("/v1/clones", None), "/v1/clones");
        assert_eq!(selecting("/v1/clones", Some("a=b,!c")), "/v1/clones?select=a%3Db%2C%21c");
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escape("debian@v2"), "debian@v2");
        assert_eq!(escape("a/b ?\u{e9}"), "a%2Fb%20%3F%C3%A9");
    }
}
