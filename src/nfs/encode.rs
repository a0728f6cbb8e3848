//! What replies are made of: attributes, `wcc_data`, statuses.

use nfsserve::nfs::{fattr3, ftype3, nfsstat3, nfstime3, specdata3, wcc_attr};

use super::xdr::Encode;
use crate::env::Time;
use crate::vfs::{Attr, Before, FileKind, Wcc};

/// Encoded length of `fattr3`, in bytes.
pub const FATTR3: usize = 84;

/// A time on the wire has 32 bits for its seconds: what lies outside becomes the nearest.
pub fn time(time: Time) -> nfstime3 {
    match u32::try_from(time.secs) {
        Ok(seconds) => nfstime3 { seconds, nseconds: time.nanos },
        Err(_) if time.secs < 0 => nfstime3 { seconds: 0, nseconds: 0 },
        Err(_) => nfstime3 { seconds: u32::MAX, nseconds: 999_999_999 },
    }
}

fn kind(kind: FileKind) -> ftype3 {
    match kind {
        FileKind::Regular => ftype3::NF3REG,
        FileKind::Directory => ftype3::NF3DIR,
        FileKind::Block => ftype3::NF3BLK,
        FileKind::Char => ftype3::NF3CHR,
        FileKind::Symlink => ftype3::NF3LNK,
        FileKind::Socket => ftype3::NF3SOCK,
        FileKind::Fifo => ftype3::NF3FIFO,
    }
}

/// RFC 1813 2.6, `fattr3`.
pub fn fattr(attr: &Attr) -> fattr3 {
    fattr3 {
        ftype: kind(attr.kind),
        mode: attr.mode & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        used: attr.used,
        rdev: specdata3 { specdata1: attr.rdev.0, specdata2: attr.rdev.1 },
        fsid: attr.fsid,
        fileid: attr.fileid,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
    }
}

/// The bytes of [`fattr`]: most replies have them once or twice, so they are put in one go.
fn encoded(attr: &Attr) -> [u8; FATTR3] {
    let mut out = [0; FATTR3];
    let mut rest = out.as_chunks_mut::<4>().0.iter_mut();
    let mut put = |word: u32| *rest.next().expect("21 words") = word.to_be_bytes();
    let fattr3 { ftype, mode, nlink, uid, gid, size, used, rdev, fsid, fileid, atime, mtime, ctime } = fattr(attr);
    [ftype as u32, mode, nlink, uid, gid].into_iter().for_each(&mut put);
    for wide in [size, used] {
        [(wide >> 32) as u32, wide as u32].into_iter().for_each(&mut put);
    }
    [rdev.specdata1, rdev.specdata2].into_iter().for_each(&mut put);
    for wide in [fsid, fileid] {
        [(wide >> 32) as u32, wide as u32].into_iter().for_each(&mut put);
    }
    for time in [atime, mtime, ctime] {
        [time.seconds, time.nseconds].into_iter().for_each(&mut put);
    }
    out
}

/// Appends the parts of replies to a buffer.
pub trait EncodeReply: Encode {
    fn put_status(&mut self, status: nfsstat3);
    fn put_attr(&mut self, attr: &Attr);
    /// `post_op_attr`
    fn put_post_op(&mut self, attr: Option<&Attr>);
    /// `wcc_data` of an object that did not change, as far as that is known.
    fn put_unchanged(&mut self, attr: Option<&Attr>);
    /// `wcc_data`
    fn put_wcc(&mut self, wcc: &Wcc);
}

impl EncodeReply for Vec<u8> {
    fn put_status(&mut self, status: nfsstat3) {
        self.put_u32(status as u32);
    }

    fn put_attr(&mut self, attr: &Attr) {
        self.extend_from_slice(&encoded(attr));
    }

    fn put_post_op(&mut self, attr: Option<&Attr>) {
        self.put_bool(attr.is_some());
        if let Some(attr) = attr {
            self.put_attr(attr);
        }
    }

    fn put_unchanged(&mut self, attr: Option<&Attr>) {
        match attr {
            Some(attr) => self.put_wcc(&Wcc::unchanged(*attr)),
            None => {
                self.put_bool(false);
                self.put_post_op(None);
            }
        }
    }

    fn put_wcc(&mut self, wcc: &Wcc) {
        let Before { size, mtime, ctime } = wcc.before;
        self.put_bool(true);
        self.put(&wcc_attr { size, mtime: time(mtime), ctime: time(ctime) });
        self.put_post_op(Some(&wcc.after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_encoded_as_the_protocol_types_are() {
        let word = |n: u64| n << 40 | n;
        let time = |secs| Time::new(secs, secs as u32 + 1);
        let attr = Attr {
            kind: FileKind::Block,
            mode: 0o4751,
            nlink: 3,
            uid: 4,
            gid: 5,
            size: word(6),
            used: word(7),
            rdev: (8, 9),
            fsid: word(10),
            fileid: word(11),
            atime: time(12),
            mtime: time(14),
            ctime: time(16),
        };
        let mut expected = Vec::new();
        expected.put(&fattr(&attr));
        assert_eq!(encoded(&attr)[..], expected[..]);
    }

    #[test]
    fn times_outside_the_wire_become_the_nearest() {
        let seconds = |secs| time(Time::new(secs, 5)).seconds;
        assert_eq!([-1, 0, 9, 1 << 32].map(seconds), [0, 0, 9, u32::MAX]);
    }
}
