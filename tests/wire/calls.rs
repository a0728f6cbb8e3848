//! One valid call of every procedure.

use crate::client::{MOUNT, NFS, PORTMAP, Xdr};
use crate::on;
use crate::tree::{BIG, HELLO, LINK, MANY, PATH, ROOT};

pub struct Specimen {
    pub name: &'static str,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub arguments: Vec<u8>,
}

/// `sattr3` with everything set.
pub fn attributes() -> Vec<u8> {
    let owner = Xdr::new().u32(1).u32(0o644).u32(1).u32(0).u32(1).u32(0).u32(1).u64(9);
    owner.u32(2).u32(5).u32(6).u32(1).0
}

fn entry(dir: u64, name: &[u8]) -> Xdr {
    on(dir).opaque(name)
}

fn nfs() -> Vec<(&'static str, Xdr)> {
    let new = attributes();
    vec![
        ("NULL", Xdr::new()),
        ("GETATTR", on(HELLO)),
        ("SETATTR", on(HELLO).raw(&new).u32(1).u32(7).u32(8)),
        ("LOOKUP", entry(ROOT, b"hello")),
        ("ACCESS", on(HELLO).u32(0x3f)),
        ("READLINK", on(LINK)),
        ("READ", on(BIG).u64(65_530).u32(4096)),
        ("WRITE", on(HELLO).u64(0).u32(5).u32(2).opaque(b"bytes")),
        ("CREATE", entry(ROOT, b"new").u32(1).raw(&new)),
        ("MKDIR", entry(ROOT, b"new").raw(&new)),
        ("SYMLINK", entry(ROOT, b"new").raw(&new).opaque(b"target")),
        ("MKNOD", entry(ROOT, b"new").u32(4).raw(&new).u32(1).u32(3)),
        ("REMOVE", entry(ROOT, b"hello")),
        ("RMDIR", entry(ROOT, b"empty")),
        ("RENAME", entry(ROOT, b"hello").raw(&entry(MANY, b"bye").0)),
        ("LINK", on(HELLO).raw(&entry(ROOT, b"again").0)),
        ("READDIR", on(MANY).u64(0).u64(0).u32(4096)),
        ("READDIRPLUS", on(MANY).u64(0).u64(0).u32(1024).u32(4096)),
        ("FSSTAT", on(ROOT)),
        ("FSINFO", on(ROOT)),
        ("PATHCONF", on(ROOT)),
        ("COMMIT", on(HELLO).u64(0).u32(0)),
    ]
}

fn mount() -> Vec<(&'static str, Xdr)> {
    vec![
        ("MOUNT NULL", Xdr::new()),
        ("MNT", Xdr::new().opaque(PATH)),
        ("DUMP", Xdr::new()),
        ("UMNT", Xdr::new().opaque(PATH)),
        ("UMNTALL", Xdr::new()),
        ("EXPORT", Xdr::new()),
    ]
}

pub fn specimens() -> Vec<Specimen> {
    let mut all = Vec::new();
    for (program, calls) in [(NFS, nfs()), (MOUNT, mount())] {
        for (procedure, (name, arguments)) in calls.into_iter().enumerate() {
            all.push(Specimen { name, program, version: 3, procedure: procedure as u32, arguments: arguments.0 });
        }
    }
    let getport = Xdr::new().u32(NFS).u32(3).u32(6).u32(0).0;
    all.push(Specimen { name: "GETPORT", program: PORTMAP, version: 2, procedure: 3, arguments: getport });
    all
}

/// Every further form of arguments that CREATE, MKNOD and SETATTR take.
pub fn variants() -> Vec<Specimen> {
    let new = attributes();
    let place = || entry(ROOT, b"new");
    let unset = Xdr::new().u32(0).u32(0).u32(0).u32(0).u32(0).u32(0).0;
    let forms = [
        ("CREATE UNCHECKED", 8, place().u32(0).raw(&new)),
        ("CREATE EXCLUSIVE", 8, place().u32(2).u64(0x1122_3344)),
        ("MKNOD BLK", 11, place().u32(3).raw(&new).u32(8).u32(1)),
        ("MKNOD SOCK", 11, place().u32(6).raw(&new)),
        ("MKNOD FIFO", 11, place().u32(7).raw(&new)),
        ("MKNOD DIR", 11, place().u32(2)),
        ("SETATTR of nothing", 2, on(HELLO).raw(&unset).u32(0)),
        ("WRITE UNSTABLE", 7, on(HELLO).u64(1 << 40).u32(0).u32(0).opaque(b"")),
    ];
    let specimen = |(name, procedure, arguments): (_, _, Xdr)| Specimen {
        name,
        program: NFS,
        version: 3,
        procedure,
        arguments: arguments.0,
    };
    forms.into_iter().map(specimen).collect()
}
