//! The NFS front end over real sockets: every procedure by sentences of RFC 1813, and everything
//! that is wrong with a call. Behind the tests of what only reads is a small tree in memory; behind
//! those of what changes something (`change/`) the file service itself, on a simulated disk.

mod activation;
mod attr;
mod calls;
mod change;
mod client;
mod dir;
mod hostile;
mod info;
mod io;
mod load;
mod modify;
mod mount;
mod ops;
mod real;
mod record;
mod rpc;
mod tree;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use mimeo::error::Result;
use mimeo::nfs::{HandleKeys, Server, ServerOptions};
use tokio::sync::oneshot;

use client::{Client, Xdr};
use tree::Tree;

/// A server in this process.
struct Harness {
    addr: SocketAddr,
    tree: Arc<Tree>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Harness {
    fn new() -> Self {
        Self::start(Tree::new(), |_| {})
    }

    fn start(tree: Tree, adjust: impl FnOnce(&mut ServerOptions)) -> Self {
        let mut options = ServerOptions::new(vec![([127, 0, 0, 1], 0).into()]);
        options.workers = 2;
        adjust(&mut options);
        let tree = Arc::new(tree);
        let server = Server::bind(Arc::clone(&tree), options).unwrap();
        let addr = server.local_addrs()[0];
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.run(async { drop(stopped.await) }))
        });
        Self { addr, tree, stop: Some(stop), thread: Some(thread) }
    }

    fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Ask the server to end.
    fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// How the server ended.
    fn ended(&mut self) -> Result<()> {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.tree.gate().open();
        if self.thread.is_some() {
            let ended = self.ended();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// The handle of a node of the tree.
fn handle(ino: u64) -> Vec<u8> {
    HandleKeys::new(vec![tree::KEY]).encode(tree::object(ino)).to_vec()
}

/// Arguments that are a handle, or begin with one.
fn on(ino: u64) -> Xdr {
    Xdr::new().opaque(&handle(ino))
}
