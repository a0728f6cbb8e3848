//! The command gate: a line for the shell that must exit 0.
//!
//! It runs as the daemon's user, in a process group of its own, which is killed whole when its time is over
//! or nobody waits for it any more. What leaves the group goes on by itself; nothing here waits for it, nor keeps its
//! standard error open.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Question;

/// What is kept of standard error, in bytes.
const MAX_TAIL: usize = 512;
/// How long to wait for the end of standard error after the command has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Run it once; the error says why that is no success.
pub async fn run(line: &str, question: &Question<'_>) -> Result<(), String> {
    let spawned = Command::new("sh")
        .args(["-c", line])
        .env("MIMEO_OPERATION", question.operation.to_string())
        .env("MIMEO_WAVE", (question.wave + 1).to_string())
        .env("MIMEO_VERSION", question.version)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = spawned.map_err(|e| format!("no shell could be started: {e}"))?;
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let stderr = child.stderr.take().ok_or("it has no standard error")?;
    // Who holds it open for ever is not read for ever: the task ends with this set.
    let mut words = JoinSet::new();
    words.spawn(tail(stderr));
    let ended = timeout(question.limit, child.wait()).await;
    drop(group);
    let words = timeout(LAST_WORDS, words.join_next()).await.ok().flatten().and_then(Result::ok).unwrap_or_default();
    let how = match ended {
        Err(_) => "it did not end in time".to_owned(),
        Ok(Err(error)) => format!("it cannot be waited for: {error}"),
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
    };
    Err(if words.is_empty() { how } else { format!("{how}: {words}") })
}

/// Kills a process group when it is dropped. Its number belongs to nobody else as long as one of its
/// processes lives; that of a group that has just ended is not given out again so soon.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // It fails where all of them have ended.
        let _ = self.0.map(|leader| kill_process_group(leader, Signal::KILL));
    }
}

/// The end of what is written there, on one line.
async fn tail(mut from: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..n]);
        kept.drain(..kept.len().saturating_sub(MAX_TAIL));
    }
    let text = String::from_utf8_lossy(&kept);
    text.split(char::is_control).filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join(" ")
}
