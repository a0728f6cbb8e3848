//! How a client comes to a connection and to its root handle, and back to them.

use std::io;

use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::{Client, Gone, What};
use crate::storm::connection::{Connection, garbage};
use crate::storm::measure::CallTimes;
use crate::storm::wire::{self, Handle, MOUNTING, Reply};
use crate::trace::NodeId;

/// A connection that is refused is tried again after this, then after twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How often a call is sent before its client gives up.
const MAX_SENT: u32 = 3;

impl Client<'_> {
    /// A connection, and with the first the root handle; tried again until the time is up.
    pub(super) async fn attach(&mut self) -> Result<Connection, Gone> {
        let deadline = Instant::now() + self.storm.settings.timeout;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match timeout_at(deadline, self.try_attach()).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            if Instant::now() + pause >= deadline {
                return Err(Gone { kind: format!("connection: {}", error.kind()), example: error.to_string() });
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn try_attach(&mut self) -> io::Result<Result<Connection, Gone>> {
        let mut connection = Connection::open(&self.storm.sources, self.storm.target.nfs).await?;
        if !connection.privileged {
            self.tally(|tally| tally.counts.unprivileged += 1);
        }
        if self.known.handles.contains_key(&NodeId::ROOT) {
            return Ok(Ok(connection));
        }
        let asked = Instant::now();
        let answer = if self.storm.target.mount == self.storm.target.nfs {
            self.mount(&mut connection).await?
        } else {
            let mut other = Connection::open(&self.storm.sources, self.storm.target.mount).await?;
            self.mount(&mut other).await?
        };
        let root = match answer {
            Ok(root) => root,
            Err(why) => return Ok(Err(Gone { kind: why.clone(), example: format!("MNT {}: {why}", self.export) })),
        };
        self.known.handles.insert(NodeId::ROOT, root);
        let times = CallTimes { procedure: MOUNTING, latency: self.now(), service: asked.elapsed(), failed: false };
        self.tally(|tally| {
            tally.call(&times);
            tally.counts.mounted += 1;
        });
        Ok(Ok(connection))
    }

    /// The root handle, or why there is none.
    async fn mount(&mut self, connection: &mut Connection) -> io::Result<Result<Handle, String>> {
        let xid = self.xid();
        let (caller, export) = (self.storm.settings.caller, self.export.clone());
        let put = |to: &mut Vec<u8>, xid| wire::put_mount(to, xid, caller, &export);
        let take = |reply: Reply<'_>| match reply.results {
            Err(why) => Ok(Err(format!("MNT {}", why.name()))),
            Ok(results) => {
                let mounted = wire::mounted(results).map_err(|_| garbage("an answer to MNT"))?;
                Ok(mounted.map_err(|status| format!("MNT {}", wire::status_name(status).replace("NFS3", "MNT3"))))
            }
        };
        connection.call(xid, put, take).await
    }

    /// Connect again, and send again what is under way.
    pub(super) async fn again(&mut self, why: &str) -> Result<Connection, Gone> {
        if self.under_way.values().any(|call| call.times_sent >= MAX_SENT) {
            return Err(Gone { kind: "no answer".to_owned(), example: format!("{}: {why}", self.export) });
        }
        let mut connection = self.attach().await?;
        let calls: Vec<(u32, What)> = self.under_way.iter().map(|(xid, call)| (*xid, call.what)).collect();
        self.tally(|tally| {
            tally.counts.reconnects += 1;
            tally.counts.retransmissions += calls.len() as u64;
        });
        for (xid, what) in calls {
            self.put(connection.output(), xid, what);
        }
        for call in self.under_way.values_mut() {
            call.sent = Instant::now();
            call.times_sent += 1;
        }
        Ok(connection)
    }
}
