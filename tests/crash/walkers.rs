//! Callers that work in a directory of their own, against the reference model.

use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::common::nfs3::{Call, Sattr, status};
use crate::progress::Progress;
use crate::reference::{Attr, Caller, Driver, Instant, Mix, ObjectId, Tree, random_op};

const ROOT: ObjectId = 1;
const MIX: Mix = Mix { objects: 80, unstable_of_ten: 5 };

pub struct Walker {
    driver: Driver,
    tree: Tree,
    rng: SmallRng,
}

impl Walker {
    /// Make the directory `walker-N` in the root of `clone`.
    pub fn start(address: SocketAddr, clone: &str, n: u64, seed: u64) -> Self {
        let mut driver = Driver::connect(address, format!("walker {n} of {clone}"), ROOT).expect("it serves");
        let root = driver.link.mount(&format!("/clones/{clone}")).expect("it serves");
        let name = format!("walker-{n}");
        let set = Sattr { mode: Some(0o777), ..Sattr::default() };
        let made = driver.link.call(&Call::mkdir(&root, name.as_bytes(), &set)).expect("it serves");
        assert_eq!(made.status, status::OK, "MKDIR {name}");
        let attr = Attr {
            mode: 0o777,
            uid: 0,
            gid: 0,
            size: 0,
            atime: Instant::Unknown,
            mtime: Instant::Unknown,
            ctime: Instant::Unknown,
            touched: true,
        };
        let mut tree = Tree::new(ROOT, attr);
        let looked_up = driver.link.call(&Call::lookup(&root, name.as_bytes())).expect("it serves");
        driver.learn(&mut tree, ROOT, looked_up.handle.expect("just made"), looked_up.attr.as_ref());
        Self { driver, tree, rng: SmallRng::seed_from_u64(seed) }
    }

    /// Work until the daemon is gone.
    pub fn work(&mut self, progress: &Progress) {
        loop {
            let op = random_op(&self.tree, MIX, &mut self.rng);
            let by = if self.rng.random_ratio(1, 3) { Caller::USER } else { Caller::ROOT };
            match self.driver.step_as(by, &mut self.tree, op) {
                Ok(_) => progress.answered(),
                Err(_) => return,
            }
        }
    }

    pub fn recover(&mut self, address: SocketAddr) {
        self.driver.recover(&mut self.tree, address).expect("it serves again");
        // And nothing of it was learnt wrong.
        self.driver.compare(&mut self.tree).expect("it serves again");
    }
}
