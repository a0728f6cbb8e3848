//! The world outside, as the daemon has it: commands, HTTP servers, clients that read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Outside, Question, command, http};
use crate::error::Result;
use crate::image::{Fleet, Gate, OperationId, Readers};

/// The machine that the daemon runs on.
pub struct Machine {
    /// `None`: nobody counts them.
    pub readers: Option<Arc<dyn Readers>>,
}

impl Machine {
    fn count_readers(&self, question: &Question<'_>, wanted: u64) -> Result<(), String> {
        let Some(readers) = &self.readers else { return Err("this daemon does not count readers".into()) };
        match readers.readers_since(question.views, question.since) as u64 {
            seen if seen >= wanted => Ok(()),
            seen => {
                let but = readers.why_incomplete(question.since).map_or(String::new(), |why| format!("; but {why}"));
                Err(format!("{seen} of {wanted} clients were seen reading{but}"))
            }
        }
    }
}

impl Outside for Machine {
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<(), String>> {
        async move {
            match question.gate {
                Gate::Command(line) => command::run(line, &question).await,
                Gate::Url(url) => http::get(url, question.limit).await,
                Gate::Clients(wanted) => self.count_readers(&question, *wanted),
            }
        }
        .boxed()
    }

    fn pause(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn roll_back<'a>(&'a self, fleet: &'a Fleet, operation: OperationId) -> BoxFuture<'a, Result<()>> {
        // What somebody switched since is his.
        async move { fleet.rollback(operation, usize::MAX).await.map(drop) }.boxed()
    }
}
