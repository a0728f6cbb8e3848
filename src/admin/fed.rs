//! Answers of lines that a task makes while they are sent.

use axum::body::{Body as HttpBody, Bytes};
use axum::response::Response;
use futures_util::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::reply::{line, lines};

/// Pieces of text that wait for the client; then the task waits.
const MAX_PIECES: usize = 16;

/// The task's end.
#[derive(Clone)]
pub(super) struct Feed(mpsc::Sender<Bytes>);

/// The client is gone.
pub(super) struct Gone;

impl Feed {
    /// A feed, and the answer that sends what it is given.
    pub fn answer() -> (Self, Response) {
        let (feed, pieces) = mpsc::channel(MAX_PIECES);
        let pieces = ReceiverStream::new(pieces).map(Ok::<_, std::convert::Infallible>);
        (Self(feed), lines(HttpBody::from_stream(pieces)))
    }

    /// Send documents, each as a line.
    pub async fn send<T: Serialize>(&self, documents: &[T]) -> Result<(), Gone> {
        let text: Vec<u8> = documents.iter().flat_map(line).collect();
        self.0.send(text.into()).await.map_err(|_| Gone)
    }

    /// Ends when the client is gone.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}
