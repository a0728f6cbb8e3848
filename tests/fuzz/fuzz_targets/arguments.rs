//! The arguments of one procedure of NFSv3 or MOUNT, which the first byte chooses.
#![no_main]

use mimeo::nfs::fuzz::{arguments, mount_arguments};

const NFS_PROCEDURES: u32 = 22;
const MOUNT_PROCEDURES: u32 = 6;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match u32::from(*choice) % (NFS_PROCEDURES + MOUNT_PROCEDURES) {
        nfs if nfs < NFS_PROCEDURES => arguments(nfs, bytes),
        mount => mount_arguments(mount - NFS_PROCEDURES, bytes),
    }
});
