//! The model against a server that is trusted, so that the model itself is proved.

use std::net::SocketAddr;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::common::nfs3::Call;
use crate::common::rpc::Connection;
use crate::from_env;
use crate::reference::{Attr, Driver, Instant, Mix, Tree, be_foreign, random_op};

/// Operations between two comparisons of the whole tree.
const RUN: u64 = 100;

/// `MIMEO_TRUSTED=NFS-ADDRESS,MOUNT-ADDRESS,EXPORT cargo test --test model -- --ignored`: an empty folder on
/// a local filesystem behind NFS-Ganesha, say.
#[test]
#[ignore = "needs another NFS server"]
fn another_server_is_what_the_model_says() {
    let variable = std::env::var("MIMEO_TRUSTED").expect("MIMEO_TRUSTED is set");
    let [nfs, mount, export] = variable.split(',').collect::<Vec<_>>()[..] else { panic!("three parts: {variable}") };
    let address: SocketAddr = nfs.parse().expect("an address");
    let root = Connection::open(mount.parse().expect("an address")).unwrap().mount(export).unwrap();
    be_foreign();
    let seed = from_env("MIMEO_SEED", 1);
    println!("MIMEO_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut driver = Driver::connect(address, format!("MIMEO_SEED={seed}"), 1).unwrap();
    let shown = driver.link.call(&Call::getattr(&root)).unwrap().attr.expect("the root's attributes");
    let attr = Attr {
        mode: shown.mode,
        uid: shown.uid,
        gid: shown.gid,
        size: 0,
        atime: Instant::Unknown,
        mtime: Instant::Unknown,
        ctime: Instant::Unknown,
        touched: false,
    };
    let mut tree = Tree::new(1, attr);
    driver.learn(&mut tree, 1, root, Some(&shown));
    let mix = Mix { objects: 60, unstable_of_ten: 6 };
    for step in 0..from_env("MIMEO_OPS", 2000) {
        let op = random_op(&tree, mix, &mut rng);
        driver.step(&mut tree, op).unwrap();
        if step % RUN == 0 {
            driver.compare(&mut tree).unwrap();
        }
    }
    driver.compare(&mut tree).unwrap();
}
