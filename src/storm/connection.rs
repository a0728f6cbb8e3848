//! TCP connections to the server: where they come from, records in and out.
//!
//! Servers want calls from a port below 1024, which only root may bind, and there are few: 359 an address
//! (665 to 1023, as Linux takes them). To a server on this machine connections come from further addresses of
//! 127.0.0.0/8 when those of one are used up; to another machine, the rest come from ordinary ports. How many
//! do is counted, since a server may refuse their calls.
//!
//! Invariants: a record is bounded by `nfs::MAX_RECORD` before memory is taken for it; nothing is read while
//! nobody waits for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::wire::{self, Reply};
use crate::nfs::RecordBuffer;

/// The privileged ports that are used, as Linux's client uses them.
const FIRST_PORT: u16 = 665;
const LAST_PORT: u16 = 1023;
const PORTS: u32 = (LAST_PORT - FIRST_PORT + 1) as u32;
/// Addresses of 127.0.0.0/8 that connections to this machine come from.
const LOOPBACK_ADDRESSES: u32 = 250;
/// Ports that are tried for one connection before it takes an ordinary one: those of four addresses, as a storm just
/// before may have left some that the kernel still remembers.
const MAX_TRIES: u32 = 4 * PORTS;

/// Where connections come from.
#[derive(Debug)]
pub struct Sources {
    /// How many privileged ports were handed out, over all addresses, round and round.
    next: AtomicU32,
    /// Whether we may bind them at all.
    may_bind: AtomicBool,
}

impl Default for Sources {
    fn default() -> Self {
        Self { next: AtomicU32::new(0), may_bind: AtomicBool::new(true) }
    }
}

impl Sources {
    /// The next port to try for a connection to `to`; `None` where it is not worth trying.
    fn next(&self, to: IpAddr) -> Option<SocketAddr> {
        if !self.may_bind.load(Ordering::Relaxed) {
            return None;
        }
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let port = LAST_PORT - (n % PORTS) as u16;
        let address = match to {
            IpAddr::V4(to) if to.is_loopback() => {
                IpAddr::V4(Ipv4Addr::new(127, 0, 0, (n / PORTS % LOOPBACK_ADDRESSES + 1) as u8))
            }
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        Some(SocketAddr::new(address, port))
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..MAX_TRIES {
            let Some(from) = self.next(to.ip()) else { break };
            match connect_from(from, to).await {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.may_bind.store(false, Ordering::Relaxed);
                }
                // Taken, or still remembered by the kernel from a connection before.
                Err(e) if matches!(e.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
                outcome => return outcome,
            }
        }
        TcpStream::connect(to).await
    }
}

async fn connect_from(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(from)?;
    socket.connect(to).await
}

/// A connection.
pub struct Connection {
    stream: TcpStream,
    input: RecordBuffer,
    /// Calls that were not sent yet, from `sent` on.
    output: Vec<u8>,
    sent: usize,
    /// Whether it comes from a port below 1024.
    pub privileged: bool,
}

impl Connection {
    pub async fn open(sources: &Sources, to: SocketAddr) -> io::Result<Self> {
        let stream = sources.connect(to).await?;
        stream.set_nodelay(true)?;
        let privileged = stream.local_addr()?.port() <= LAST_PORT;
        Ok(Self { stream, input: RecordBuffer::new(), output: Vec::new(), sent: 0, privileged })
    }

    /// Where calls are appended.
    pub fn output(&mut self) -> &mut Vec<u8> {
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        &mut self.output
    }

    /// Send what was appended and read what has come, until something came. May be dropped at any await.
    pub async fn progress(&mut self) -> io::Result<()> {
        let (mut reader, mut writer) = self.stream.split();
        loop {
            let room = self.input.room();
            let unsent = &self.output[self.sent..];
            let received = tokio::select! {
                written = writer.write(unsent), if !unsent.is_empty() => {
                    self.sent += written?;
                    continue;
                }
                received = reader.read_buf(room) => received?,
            };
            self.input.filled();
            return if received == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
        }
    }

    /// The next record that is here.
    pub fn next_record(&mut self) -> io::Result<Option<&[u8]>> {
        self.input.next_record().map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string()))
    }

    /// One call by itself, to the end: `put` appends it under `xid`, `take` reads its reply.
    pub async fn call<T>(
        &mut self,
        xid: u32,
        put: impl FnOnce(&mut Vec<u8>, u32),
        take: impl FnOnce(Reply<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        put(self.output(), xid);
        loop {
            // Two steps, as a record borrows the connection.
            while let Some(record) = self.next_record()? {
                let reply = wire::reply(record).map_err(|_| garbage("a reply"))?;
                if reply.xid == xid {
                    return take(reply);
                }
            }
            self.progress().await?;
        }
    }
}

/// What the server sent is not what it has to be.
pub fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of the server cannot be decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_to_this_machine_have_ports_enough_for_ten_thousand() {
        let sources = Sources::default();
        let to = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let used: std::collections::HashSet<_> = (0..10_000).filter_map(|_| sources.next(to)).collect();
        assert_eq!(used.len(), 10_000);
        assert!(used.iter().all(|from| (FIRST_PORT..=LAST_PORT).contains(&from.port()) && from.ip().is_loopback()));
        assert_eq!(Sources::default().next(to), Some("127.0.0.1:1023".parse().unwrap()));
    }
}
