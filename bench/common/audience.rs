//! Readers that watch a switch: each looks at one file by its name, over and over, and notes when it sees
//! another version, and how long it ever waits.
//!
//! Over NFS each reader is a connection of its own, all on one thread; a round of it is what a client does
//! that opens a file again while it still has the former one: LOOKUP, READ, then READ and GETATTR by the
//! handle that it held from the start, which must go on meaning the bytes that it meant. On a local
//! filesystem one thread goes round the files of all readers.

#![allow(clippy::disallowed_methods, reason = "a bench measures by the clock and waits for processes")]

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use parking_lot::Mutex;

use super::wire::{self, AsyncClient};

/// What a reader reads of its file.
pub const MARKER_LEN: usize = 4096;
/// A reader that does not see what it must in this time never will.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(1);

/// The first bytes of the file in either version.
pub type Markers = Arc<[Vec<u8>; 2]>;

/// A file as a client finds it: by the handle of its directory, and its name.
#[derive(Clone)]
pub struct Place {
    pub dir: Vec<u8>,
    pub name: String,
}

/// Which of the clones a reader looks at: they are spread evenly, or several look at one.
pub fn clone_of(reader: usize, readers: usize, clones: usize) -> usize {
    if clones < readers { reader % clones } else { reader * clones / readers }
}

pub struct Audience {
    sights: Vec<Arc<Mutex<Sight>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What one reader has seen.
#[derive(Default)]
struct Sight {
    version: Option<usize>,
    /// How often the version was another than the time before.
    changes: usize,
    changed: Option<Instant>,
    answered: Option<Instant>,
    longest_gap: Duration,
    /// Times that there was no such file.
    missed: usize,
}

impl Sight {
    fn answer(&mut self) {
        let now = Instant::now();
        let gap = self.answered.replace(now).map_or(Duration::ZERO, |before| now - before);
        self.longest_gap = self.longest_gap.max(gap);
    }

    fn see(&mut self, version: usize) {
        self.answer();
        if self.version.replace(version).is_some_and(|before| before != version) {
            self.changes += 1;
            self.changed = self.answered;
        }
    }
}

/// What an audience saw of one switch; times are counted from the moment before it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Until the first and the last reader had an answer of the new version.
    pub first: Duration,
    pub last: Duration,
    /// The longest that any reader waited for an answer.
    pub longest_gap: Duration,
    /// The same in a while before the switch.
    pub quiet_gap: Duration,
    pub missed: usize,
}

impl Audience {
    /// A connection for each place.
    pub fn over_nfs(address: SocketAddr, places: Vec<Place>, markers: &Markers) -> Result<Self> {
        let markers = markers.clone();
        let count = places.len();
        Self::on_a_thread(count, move |sights, stop| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut readers = tokio::task::JoinSet::new();
                for (place, sight) in places.into_iter().zip(sights) {
                    readers.spawn(watch(address, place, markers.clone(), sight, stop.clone()));
                }
                while let Some(ended) = readers.join_next().await {
                    ended??;
                }
                Ok(())
            })
        })
    }

    /// A reader for each path.
    pub fn on_disk(paths: Vec<PathBuf>, markers: &Markers) -> Result<Self> {
        let markers = markers.clone();
        Self::on_a_thread(paths.len(), move |sights, stop| {
            let mut bytes = vec![0; MARKER_LEN];
            while !stop.load(Ordering::Relaxed) {
                for (path, sight) in paths.iter().zip(&sights) {
                    match File::open(path).and_then(|mut file| file.read_exact(&mut bytes)) {
                        Ok(()) => sight.lock().see(version_of(&bytes, &markers)?),
                        Err(error) if error.kind() == ErrorKind::NotFound => sight.lock().missed += 1,
                        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
                    }
                }
            }
            Ok(())
        })
    }

    fn on_a_thread(
        readers: usize,
        run: impl FnOnce(Vec<Arc<Mutex<Sight>>>, Arc<AtomicBool>) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let sights: Vec<_> = (0..readers).map(|_| Arc::default()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, until) = (sights.clone(), stop.clone());
        let thread = Some(std::thread::spawn(move || run(theirs, until)));
        let mut audience = Self { sights, stop, thread };
        audience.wait_until(|sight| sight.version.is_some())?;
        Ok(audience)
    }

    /// Switch to version `to` before the readers' eyes; watch for `while_quiet` before and after it.
    pub fn watch<T>(
        mut self,
        to: usize,
        while_quiet: Duration,
        switch: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Seen)> {
        self.begin_anew();
        std::thread::sleep(while_quiet);
        let quiet_gap = self.begin_anew();
        let begin = Instant::now();
        let done = switch()?;
        self.wait_until(|sight| sight.version == Some(to))?;
        std::thread::sleep(while_quiet);
        let longest_gap = self.longest_gap();
        self.finish()?;
        let times: Vec<_> = self.sights.iter().filter_map(|sight| Some(sight.lock().changed? - begin)).collect();
        let changes: usize = self.sights.iter().map(|sight| sight.lock().changes).sum();
        ensure!(
            changes == self.sights.len() && times.len() == changes,
            "{} readers saw the version change {changes} times: some saw the new one and then the old",
            self.sights.len()
        );
        let (first, last) = times.iter().min().zip(times.iter().max()).context("no readers")?;
        let missed = self.sights.iter().map(|sight| sight.lock().missed).sum();
        Ok((done, Seen { first: *first, last: *last, longest_gap, quiet_gap, missed }))
    }

    /// Forget what was seen but for the version; the longest gap until now.
    fn begin_anew(&self) -> Duration {
        let longest = self.longest_gap();
        for sight in &self.sights {
            let mut sight = sight.lock();
            let Sight { version, answered, .. } = *sight;
            *sight = Sight { version, answered, ..Sight::default() };
        }
        longest
    }

    /// That under way counts as well.
    fn longest_gap(&self) -> Duration {
        let gap = |sight: &Sight| sight.longest_gap.max(sight.answered.map_or(Duration::ZERO, |at| at.elapsed()));
        self.sights.iter().map(|sight| gap(&sight.lock())).max().unwrap_or_default()
    }

    fn wait_until(&mut self, seen: impl Fn(&Sight) -> bool) -> Result<()> {
        let begin = Instant::now();
        while !self.sights.iter().all(|sight| seen(&sight.lock())) {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                self.finish()?;
                bail!("the readers ended");
            }
            ensure!(begin.elapsed() < PATIENCE, "a reader still sees the former version");
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| anyhow!("the readers' thread failed"))?,
            None => Ok(()),
        }
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            eprintln!("{error:#}");
        }
    }
}

/// One connection's rounds.
async fn watch(
    address: SocketAddr,
    place: Place,
    markers: Markers,
    sight: Arc<Mutex<Sight>>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let mut client = AsyncClient::connect(address).await?;
    let mut held: Option<(Vec<u8>, usize)> = None;
    while !stop.load(Ordering::Relaxed) {
        let found = client.call(wire::lookup(&place.dir, &place.name)).await?;
        sight.lock().answer();
        let handle = wire::first_opaque(&found)?;
        let version = read_version(&mut client, &handle, &markers).await?;
        sight.lock().see(version);
        let (held, meant) = held.get_or_insert_with(|| (handle.clone(), version));
        let means = read_version(&mut client, held, &markers).await?;
        ensure!(means == *meant, "a handle of version {meant} shows version {means}");
        sight.lock().answer();
        client.call(wire::getattr(held)).await?;
        sight.lock().answer();
    }
    Ok(())
}

async fn read_version(client: &mut AsyncClient, handle: &[u8], markers: &Markers) -> Result<usize> {
    let body = client.call(wire::read(handle, 0, MARKER_LEN as u32)).await?;
    version_of(&wire::read_payload(&body)?, markers)
}

fn version_of(bytes: &[u8], markers: &Markers) -> Result<usize> {
    markers.iter().position(|marker| marker == bytes).context("a reader read bytes of neither version")
}
