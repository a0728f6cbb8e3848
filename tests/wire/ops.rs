//! NFSv3 procedures as functions: handles and attributes in, parsed results out.

use crate::client::{Body, Client, Fattr, MOUNT, OK, Xdr};

pub type Fh = Vec<u8>;
pub type Stamp = (u32, u32);

/// `set_atime`, `set_mtime`
#[derive(Clone, Copy, Debug, Default)]
pub enum When {
    #[default]
    Keep,
    Now,
    To(Stamp),
}

/// `sattr3`
#[derive(Clone, Copy, Debug, Default)]
pub struct Set {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: When,
    pub mtime: When,
}

pub fn mode(mode: u32) -> Set {
    Set { mode: Some(mode), ..Set::default() }
}

pub fn size(size: u64) -> Set {
    Set { size: Some(size), ..Set::default() }
}

impl Set {
    fn put(&self, to: Xdr) -> Xdr {
        let word = |to: Xdr, value: Option<u32>| match value {
            Some(value) => to.u32(1).u32(value),
            None => to.u32(0),
        };
        let to = [self.mode, self.uid, self.gid].into_iter().fold(to, word);
        let to = match self.size {
            Some(size) => to.u32(1).u64(size),
            None => to.u32(0),
        };
        [self.atime, self.mtime].into_iter().fold(to, |to, when| match when {
            When::Keep => to.u32(0),
            When::Now => to.u32(1),
            When::To((secs, nanos)) => to.u32(2).u32(secs).u32(nanos),
        })
    }
}

/// `wcc_data`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wcc {
    pub before: Option<(u64, Stamp, Stamp)>,
    pub after: Option<Fattr>,
}

impl Wcc {
    pub fn of(body: &mut Body<'_>) -> Self {
        let before = body.bool().then(|| (body.u64(), (body.u32(), body.u32()), (body.u32(), body.u32())));
        Self { before, after: body.post_op() }
    }

    /// It tells `before` truly, and that something changed.
    #[track_caller]
    pub fn assert_changed(&self, before: &Fattr) {
        assert_eq!(self.before, Some((before.size, before.mtime, before.ctime)), "what it was before");
        let after = self.after.as_ref().expect("attributes after");
        assert!(after.ctime > before.ctime, "ctime grows: {:?} after {:?}", after.ctime, before.ctime);
    }

    /// It tells `attr`, before and after.
    #[track_caller]
    pub fn assert_unchanged(&self, attr: &Fattr) {
        assert_eq!(self.before, Some((attr.size, attr.mtime, attr.ctime)));
        assert_eq!(self.after.as_ref(), Some(attr));
    }
}

/// A status that is not OK, and the `wcc_data` with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub status: u32,
    pub wcc: Vec<Wcc>,
}

pub type Outcome<T> = Result<T, Failed>;

/// The status of a call that must have failed.
#[track_caller]
pub fn status<T>(outcome: Outcome<T>) -> u32 {
    outcome.err().expect("this must fail").status
}

/// What CREATE, MKDIR, SYMLINK and MKNOD give.
#[derive(Clone, Debug)]
pub struct Made {
    pub fh: Fh,
    pub attr: Fattr,
    pub wcc: Wcc,
}

#[derive(Clone, Debug)]
pub struct Written {
    pub wcc: Wcc,
    pub count: u32,
    pub committed: u32,
    pub verifier: [u8; 8],
}

/// LINK's failure: the status, attributes of the file, `wcc_data` of the directory.
pub type NotLinked = Box<(u32, Option<Fattr>, Wcc)>;

pub const UNSTABLE: u32 = 0;
pub const DATA_SYNC: u32 = 1;
pub const FILE_SYNC: u32 = 2;

pub fn place(dir: &[u8], name: &[u8]) -> Xdr {
    Xdr::new().opaque(dir).opaque(name)
}

/// Arguments of a guarded CREATE.
pub fn create_args(dir: &[u8], name: &str, new: &Set) -> Xdr {
    new.put(place(dir, name.as_bytes()).u32(1))
}

/// Parse results: the status, then `wccs` of `wcc_data` if it failed.
fn begin(results: &[u8], wccs: usize) -> Outcome<Body<'_>> {
    let mut body = Body(results);
    match body.u32() {
        OK => Ok(body),
        status => {
            let wcc = (0..wccs).map(|_| Wcc::of(&mut body)).collect();
            body.end();
            Err(Failed { status, wcc })
        }
    }
}

pub fn parse_made(results: &[u8]) -> Outcome<Made> {
    let mut body = begin(results, 1)?;
    assert!(body.bool(), "a handle");
    let made = Made { fh: body.opaque().to_vec(), attr: body.post_op().unwrap(), wcc: Wcc::of(&mut body) };
    body.end();
    Ok(made)
}

fn parse_wcc(results: &[u8]) -> Outcome<Wcc> {
    let mut body = begin(results, 1)?;
    let wcc = Wcc::of(&mut body);
    body.end();
    Ok(wcc)
}

impl Client {
    pub fn mount(&mut self, path: &str) -> Result<Fh, u32> {
        let results = self.run(MOUNT, 1, Xdr::new().opaque(path.as_bytes()));
        let mut body = Body(&results);
        match body.u32() {
            OK => Ok(body.opaque().to_vec()),
            status => Err(status),
        }
    }

    pub fn getattr(&mut self, fh: &[u8]) -> Result<Fattr, u32> {
        let results = self.nfs(1, Xdr::new().opaque(fh));
        let mut body = Body(&results);
        match body.u32() {
            OK => Ok(body.attr()),
            status => Err(status),
        }
    }

    /// Attributes of an object that must be there.
    #[track_caller]
    pub fn attr(&mut self, fh: &[u8]) -> Fattr {
        self.getattr(fh).unwrap()
    }

    pub fn lookup(&mut self, dir: &[u8], name: &str) -> Result<(Fh, Fattr), u32> {
        let results = self.nfs(3, place(dir, name.as_bytes()));
        let mut body = Body(&results);
        match body.u32() {
            OK => Ok((body.opaque().to_vec(), body.post_op().unwrap())),
            status => Err(status),
        }
    }

    /// The handle at `path` below `dir`, which must be there.
    #[track_caller]
    pub fn find(&mut self, dir: &[u8], path: &str) -> Fh {
        path.split('/').fold(dir.to_vec(), |dir, name| self.lookup(&dir, name).unwrap().0)
    }

    /// The bits that ACCESS grants of all that there are.
    pub fn access(&mut self, fh: &[u8]) -> u32 {
        let results = self.nfs(4, Xdr::new().opaque(fh).u32(0x3f));
        let mut body = Body(&results);
        assert_eq!(body.u32(), OK);
        body.post_op();
        body.u32()
    }

    pub fn readlink(&mut self, fh: &[u8]) -> Vec<u8> {
        let results = self.nfs(5, Xdr::new().opaque(fh));
        let mut body = Body(&results);
        assert_eq!(body.u32(), OK);
        body.post_op();
        body.opaque().to_vec()
    }

    /// At most 1 MiB, and whether the file ends there.
    pub fn read(&mut self, fh: &[u8], offset: u64, count: u32) -> Result<(Vec<u8>, bool), u32> {
        let results = self.nfs(6, Xdr::new().opaque(fh).u64(offset).u32(count));
        let mut body = Body(&results);
        match body.u32() {
            OK => {
                body.post_op();
                body.u32();
                let eof = body.bool();
                Ok((body.opaque().to_vec(), eof))
            }
            status => Err(status),
        }
    }

    /// All bytes of a file.
    #[track_caller]
    pub fn read_all(&mut self, fh: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let (bytes, eof) = self.read(fh, all.len() as u64, 1 << 20).unwrap();
            all.extend(bytes);
            if eof {
                return all;
            }
        }
    }

    pub fn setattr(&mut self, fh: &[u8], set: &Set, guard: Option<Stamp>) -> Outcome<Wcc> {
        let arguments = set.put(Xdr::new().opaque(fh));
        let arguments = match guard {
            Some((secs, nanos)) => arguments.u32(1).u32(secs).u32(nanos),
            None => arguments.u32(0),
        };
        parse_wcc(&self.nfs(2, arguments))
    }

    pub fn write(&mut self, fh: &[u8], offset: u64, data: &[u8], stable: u32) -> Outcome<Written> {
        let arguments = Xdr::new().opaque(fh).u64(offset).u32(data.len() as u32).u32(stable).opaque(data);
        let results = self.nfs(7, arguments);
        let mut body = begin(&results, 1)?;
        let wcc = Wcc::of(&mut body);
        let (count, committed) = (body.u32(), body.u32());
        let verifier = body.u64().to_be_bytes();
        body.end();
        Ok(Written { wcc, count, committed, verifier })
    }

    pub fn commit(&mut self, fh: &[u8]) -> Outcome<[u8; 8]> {
        let results = self.nfs(21, Xdr::new().opaque(fh).u64(0).u32(0));
        let mut body = begin(&results, 1)?;
        Wcc::of(&mut body);
        let verifier = body.u64().to_be_bytes();
        body.end();
        Ok(verifier)
    }

    pub fn create(&mut self, dir: &[u8], name: &str, new: &Set) -> Outcome<Made> {
        parse_made(&self.nfs(8, create_args(dir, name, new)))
    }

    pub fn create_unchecked(&mut self, dir: &[u8], name: &str, new: &Set) -> Outcome<Made> {
        parse_made(&self.nfs(8, new.put(place(dir, name.as_bytes()).u32(0))))
    }

    pub fn create_exclusive(&mut self, dir: &[u8], name: &str, verifier: u64) -> Outcome<Made> {
        parse_made(&self.nfs(8, place(dir, name.as_bytes()).u32(2).u64(verifier)))
    }

    pub fn mkdir(&mut self, dir: &[u8], name: &str, new: &Set) -> Outcome<Made> {
        parse_made(&self.nfs(9, new.put(place(dir, name.as_bytes()))))
    }

    pub fn symlink(&mut self, dir: &[u8], name: &str, target: &[u8]) -> Outcome<Made> {
        parse_made(&self.nfs(10, Set::default().put(place(dir, name.as_bytes())).opaque(target)))
    }

    /// `numbers` of a device.
    pub fn mknod(&mut self, dir: &[u8], name: &str, kind: u32, numbers: Option<(u32, u32)>) -> Outcome<Made> {
        let arguments = mode(0o640).put(place(dir, name.as_bytes()).u32(kind));
        let arguments = match numbers {
            Some((major, minor)) => arguments.u32(major).u32(minor),
            None => arguments,
        };
        parse_made(&self.nfs(11, arguments))
    }

    pub fn remove(&mut self, dir: &[u8], name: &str) -> Outcome<Wcc> {
        parse_wcc(&self.nfs(12, place(dir, name.as_bytes())))
    }

    pub fn rmdir(&mut self, dir: &[u8], name: &str) -> Outcome<Wcc> {
        parse_wcc(&self.nfs(13, place(dir, name.as_bytes())))
    }

    pub fn rename(&mut self, from: (&[u8], &str), to: (&[u8], &str)) -> Outcome<[Wcc; 2]> {
        let arguments = place(from.0, from.1.as_bytes()).raw(&place(to.0, to.1.as_bytes()).0);
        let results = self.nfs(14, arguments);
        let mut body = begin(&results, 2)?;
        let both = [Wcc::of(&mut body), Wcc::of(&mut body)];
        body.end();
        Ok(both)
    }

    /// The file's attributes, and `wcc_data` of the directory.
    pub fn link(&mut self, fh: &[u8], dir: &[u8], name: &str) -> Result<(Fattr, Wcc), NotLinked> {
        let results = self.nfs(15, Xdr::new().opaque(fh).raw(&place(dir, name.as_bytes()).0));
        let mut body = Body(&results);
        let (status, file, wcc) = (body.u32(), body.post_op(), Wcc::of(&mut body));
        body.end();
        if status == OK { Ok((file.unwrap(), wcc)) } else { Err(Box::new((status, file, wcc))) }
    }

    /// Every entry but the dots: name, fileid, and with it attributes and handle.
    pub fn list(&mut self, dir: &[u8]) -> Vec<(String, u64, Fattr, Fh)> {
        self.list_by(dir, 8192, 32_768)
    }

    /// [`list`](Self::list), in calls of so many bytes.
    pub fn list_by(&mut self, dir: &[u8], dircount: u32, maxcount: u32) -> Vec<(String, u64, Fattr, Fh)> {
        let mut lines: Vec<(String, u64, Fattr, Fh)> = Vec::new();
        let mut after = 0;
        loop {
            let arguments = Xdr::new().opaque(dir).u64(after).u64(0).u32(dircount).u32(maxcount);
            let results = self.nfs(17, arguments);
            let mut body = Body(&results);
            assert_eq!(body.u32(), OK);
            body.post_op();
            body.u64();
            while body.bool() {
                let (fileid, name) = (body.u64(), String::from_utf8(body.opaque().to_vec()).unwrap());
                after = body.u64();
                let (attr, handle) = (body.post_op(), body.bool().then(|| body.opaque().to_vec()));
                if name != "." && name != ".." {
                    lines.push((name, fileid, attr.unwrap(), handle.unwrap()));
                }
            }
            if body.bool() {
                lines.sort_by(|a, b| a.0.cmp(&b.0));
                return lines;
            }
        }
    }

    /// The names in a directory, sorted.
    pub fn names(&mut self, dir: &[u8]) -> Vec<String> {
        self.list(dir).into_iter().map(|line| line.0).collect()
    }
}
