//! The server under load: where its NFS and MOUNT listen.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::connection::{Connection, Sources, garbage};
use super::wire::{self, MOUNT, NFS};
use crate::error::{Error, ErrorKind, Result};

const PORTMAP_PORT: u16 = 111;
/// What NFS listens on where no port mapper answers.
const NFS_PORT: u16 = 2049;
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub nfs: SocketAddr,
    pub mount: SocketAddr,
}

impl Target {
    /// `HOST` or `HOST:PORT`. Without a port its port mapper is asked for both ports, and where there is none,
    /// NFS is at 2049. MOUNT is at `mount_port`; if that is not given, where the port mapper says, else beside NFS.
    pub async fn find(server: &str, mount_port: Option<u16>) -> Result<Self> {
        let (host, port) = split(server)?;
        let ip = address(host).await?;
        let mapped = async |program| match port {
            Some(_) => None,
            None => mapped(SocketAddr::new(ip, PORTMAP_PORT), program).await,
        };
        let nfs = match port {
            Some(port) => port,
            None => mapped(NFS).await.unwrap_or(NFS_PORT),
        };
        let mount = match mount_port {
            Some(port) => port,
            None => mapped(MOUNT).await.unwrap_or(nfs),
        };
        Ok(Self { nfs: SocketAddr::new(ip, nfs), mount: SocketAddr::new(ip, mount) })
    }
}

/// A host, and a port if one is given; an IPv6 address with a port has brackets.
fn split(server: &str) -> Result<(&str, Option<u16>)> {
    if server.parse::<std::net::IpAddr>().is_ok() {
        return Ok((server, None));
    }
    let Some((host, port)) = server.rsplit_once(':') else { return Ok((server, None)) };
    let port = port.parse().map_err(|_| {
        Error::invalid(format!("server {server:?} has no port behind the colon")).remedy("write HOST or HOST:PORT")
    })?;
    Ok((host.trim_start_matches('[').trim_end_matches(']'), Some(port)))
}

async fn address(host: &str) -> Result<std::net::IpAddr> {
    let unknown = || Error::not_found(format!("server {host:?} has no address"));
    let mut found = tokio::net::lookup_host((host, 0)).await.map_err(|e| unknown().because(e))?;
    found.next().map(|address| address.ip()).ok_or_else(unknown)
}

/// What a port mapper says; `None` if it says nothing.
async fn mapped(mapper: SocketAddr, program: u32) -> Option<u16> {
    let ask = async {
        let mut connection = Connection::open(&Sources::default(), mapper).await?;
        let put = |to: &mut Vec<u8>, xid| wire::put_get_port(to, xid, program);
        let port = |reply: wire::Reply<'_>| {
            let results = reply.results.map_err(|why| io::Error::other(why.name()))?;
            wire::port(results).map_err(|_| garbage("an answer of the port mapper"))
        };
        connection.call(1, put, port).await
    };
    timeout(PATIENCE, ask).await.ok()?.ok().filter(|port: &u16| *port != 0)
}

/// The error for a server that cannot be used at all.
pub fn unusable(target: Target, cause: io::Error) -> Error {
    let what = format!("server {} (MOUNT at port {})", target.nfs, target.mount.port());
    let remedy = "check --server, --mount-port, and that its exports admit this machine";
    Error::new(ErrorKind::Unavailable, what).because(cause).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_hosts_with_or_without_a_port() {
        assert_eq!(split("filer").unwrap(), ("filer", None));
        assert_eq!(split("filer:20490").unwrap(), ("filer", Some(20490)));
        assert_eq!(split("[::1]:2049").unwrap(), ("::1", Some(2049)));
        assert_eq!(split("::1").unwrap(), ("::1", None));
        assert!(split("filer:nfs").is_err());
    }
}
