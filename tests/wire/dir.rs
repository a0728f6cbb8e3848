//! LOOKUP, READDIR, READDIRPLUS.

use crate::client::{ACCES, Body, Client, Fattr, NAMETOOLONG, NOENT, NOTDIR, OK, TOOSMALL, auth_sys};
use crate::tree::{EMPTY, HELLO, MANY, ROOT, SECRET, Tree};
use crate::{Harness, handle, on};

const READDIR: u32 = 16;
const READDIRPLUS: u32 = 17;

#[test]
fn lookup_finds_names_and_dots() {
    for tree in [Tree::new(), Tree::cold()] {
        let server = Harness::start(tree, |_| {});
        let mut client = server.client();
        let names = [
            (ROOT, &b"hello"[..], HELLO),
            (ROOT, b"\xff\xfe", 12),
            (ROOT, b".", ROOT),
            (ROOT, b"..", ROOT),
            (MANY, b".", MANY),
            (MANY, b"..", ROOT),
        ];
        for (dir, name, found) in names {
            let reply = client.nfs(3, on(dir).opaque(name));
            let mut body = Body(&reply);
            assert_eq!(body.u32(), OK, "{name:?}");
            assert_eq!(body.opaque(), handle(found));
            assert_eq!(body.post_op().unwrap().fileid, found);
            assert_eq!(body.post_op().unwrap().fileid, dir, "the directory's attributes too");
            body.end();
        }
    }
}

#[test]
fn lookup_says_why_not_with_the_attributes_of_what_was_searched() {
    let server = Harness::new();
    let mut client = server.client();
    client.credential = auth_sys(1000, 1000, &[]);
    let cases = [
        (ROOT, vec![b'n'; 255], NOENT),
        (ROOT, vec![b'n'; 256], NAMETOOLONG),
        (ROOT, vec![b'n'; 4096], NAMETOOLONG),
        (ROOT, b"a/b".to_vec(), NOENT),
        (ROOT, Vec::new(), NOENT),
        (HELLO, b"x".to_vec(), NOTDIR),
        (SECRET, b"x".to_vec(), ACCES),
    ];
    for (dir, name, status) in cases {
        let reply = client.nfs(3, on(dir).opaque(&name));
        let mut body = Body(&reply);
        assert_eq!(body.u32(), status, "a name of {} bytes", name.len());
        assert_eq!(body.post_op().unwrap().fileid, dir);
        body.end();
    }
}

struct Line {
    name: Vec<u8>,
    fileid: u64,
    cookie: u64,
    attr: Option<Fattr>,
    handle: Option<Vec<u8>>,
}

struct Page {
    lines: Vec<Line>,
    eof: bool,
    /// Length of `READDIR3resok` or `READDIRPLUS3resok`.
    size: usize,
}

/// One page of a listing, or the status of its failure.
fn page(client: &mut Client, dir: u64, after: u64, counts: &[u32]) -> Result<Page, u32> {
    let plus = counts.len() == 2;
    // Any verifier will do.
    let arguments = counts.iter().fold(on(dir).u64(after).u64(0xdead_beef), |to, count| to.u32(*count));
    let reply = client.nfs(if plus { READDIRPLUS } else { READDIR }, arguments);
    let mut body = Body(&reply);
    let status = body.u32();
    assert_eq!(body.post_op().unwrap().fileid, dir, "attributes in success and failure");
    if status != OK {
        body.end();
        return Err(status);
    }
    assert_eq!(body.u64(), 0, "the verifier never changes");
    let mut lines = Vec::new();
    while body.bool() {
        let (fileid, name, cookie) = (body.u64(), body.opaque().to_vec(), body.u64());
        let attr = if plus { body.post_op() } else { None };
        let handle = (plus && body.bool()).then(|| body.opaque().to_vec());
        lines.push(Line { name, fileid, cookie, attr, handle });
    }
    let eof = body.bool();
    body.end();
    Ok(Page { lines, eof, size: reply.len() - 4 })
}

/// The whole listing, page by page, each checked against its bounds.
fn walk(client: &mut Client, dir: u64, counts: &[u32]) -> Result<Vec<Line>, u32> {
    let mut all: Vec<Line> = Vec::new();
    loop {
        let after = all.last().map_or(0, |line| line.cookie);
        let page = page(client, dir, after, counts)?;
        assert!(page.size <= *counts.last().unwrap() as usize, "{} of {counts:?}", page.size);
        assert!(page.eof || !page.lines.is_empty(), "a page gets further or fails");
        all.extend(page.lines);
        if page.eof {
            return Ok(all);
        }
    }
}

fn expected(server: &Harness, dir: u64) -> Vec<Vec<u8>> {
    let dots = [b".".to_vec(), b"..".to_vec()];
    dots.into_iter().chain(server.tree.names(dir)).collect()
}

fn names(lines: &[Line]) -> Vec<Vec<u8>> {
    lines.iter().map(|line| line.name.clone()).collect()
}

#[test]
fn a_listing_shows_dots_and_every_entry_once_whatever_the_size_of_its_pages() {
    for tree in [Tree::new(), Tree::cold()] {
        let server = Harness::start(tree, |_| {});
        let mut client = server.client();
        for dir in [ROOT, MANY, EMPTY] {
            for counts in [&[200][..], &[512], &[4096], &[u32::MAX], &[512, 1024], &[8192, 32_768], &[100, u32::MAX]] {
                let lines = walk(&mut client, dir, counts).unwrap();
                assert_eq!(names(&lines), expected(&server, dir), "directory {dir}, {counts:?}");
                assert_eq!((lines[0].fileid, lines[0].cookie), (dir, 1));
                assert_eq!((lines[1].fileid, lines[1].cookie), (ROOT, 2));
                assert!(lines[2..].iter().all(|line| line.cookie > 2));
            }
        }
    }
}

#[test]
fn a_page_holds_as_much_as_its_bound_and_not_a_byte_more() {
    let server = Harness::new();
    let mut client = server.client();
    let all = walk(&mut client, MANY, &[u32::MAX]).unwrap();
    let cost = |line: &Line| 24 + line.name.len().next_multiple_of(4);
    for count in 0..1000 {
        match page(&mut client, MANY, 0, &[count]) {
            Err(status) => {
                assert_eq!(status, TOOSMALL);
                assert!((count as usize) < 104 + cost(&all[0]), "{count} is enough for one entry");
            }
            Ok(page) => {
                assert!(page.size <= count as usize);
                let next = cost(&all[page.lines.len()]);
                assert!(page.size + next > count as usize, "{count}: one more would have fitted {}", page.size);
            }
        }
    }
}

#[test]
fn a_page_with_attributes_keeps_both_bounds() {
    let server = Harness::new();
    let mut client = server.client();
    let name_cost = |line: &Line| 24 + line.name.len().next_multiple_of(4);
    for dircount in [0, 50, 100, 1000, 100_000] {
        for maxcount in (0..4000).step_by(37) {
            match page(&mut client, MANY, 0, &[dircount, maxcount]) {
                Err(status) => {
                    assert_eq!(status, TOOSMALL);
                    assert!(maxcount < 104 + 24 + 4 + 140, "{maxcount} is enough for one entry");
                }
                Ok(page) => {
                    assert!(page.size <= maxcount as usize);
                    let told: usize = page.lines.iter().map(name_cost).sum();
                    assert!(told <= dircount as usize || page.lines.len() == 1, "{told} of {dircount}");
                }
            }
        }
    }
}

#[test]
fn entries_with_attributes_carry_handles_that_work() {
    let server = Harness::new();
    let mut client = server.client();
    let lines = walk(&mut client, ROOT, &[8192, 32_768]).unwrap();
    for line in lines {
        let attr = line.attr.unwrap();
        assert_eq!(attr.fileid, line.fileid);
        assert_eq!(line.handle.unwrap(), handle(line.fileid), "{:?}", line.name);
    }
}

#[test]
fn any_cookie_means_continue_after_it() {
    let server = Harness::new();
    let mut client = server.client();
    let all = expected(&server, ROOT);
    for (after, left) in [(0, 0), (1, 1), (2, 2), (5, 5), (u64::MAX, all.len())] {
        let page = page(&mut client, ROOT, after, &[4096]).unwrap();
        assert_eq!(names(&page.lines), all[left..], "after {after}");
        assert!(page.eof);
    }
}

#[test]
fn an_empty_rest_needs_no_room_for_entries() {
    let server = Harness::new();
    let mut client = server.client();
    let rest = page(&mut client, EMPTY, 2, &[104]).unwrap();
    assert!(rest.lines.is_empty() && rest.eof);
    assert_eq!(page(&mut client, EMPTY, 2, &[103]).err(), Some(TOOSMALL));
}

#[test]
fn only_directories_that_may_be_read_are_listed() {
    let server = Harness::new();
    let mut client = server.client();
    client.credential = auth_sys(1000, 1000, &[]);
    for counts in [&[4096][..], &[4096, 4096]] {
        assert_eq!(page(&mut client, HELLO, 0, counts).err(), Some(NOTDIR));
        assert_eq!(page(&mut client, SECRET, 0, counts).err(), Some(ACCES));
    }
}
