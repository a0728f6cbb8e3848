//! LOOKUP, READDIR, READDIRPLUS.
//!
//! Listings begin with "." (cookie 1) and ".." (cookie 2), then come the directory's own entries by
//! their cookies. The client's bounds are kept to the byte: an entry that would exceed them ends the
//! listing, and a bound that not even one entry fits is TOOSMALL.

use nfsserve::nfs::nfsstat3;

use super::super::args;
use super::super::dispatch::{Answered, Context, Halt};
use super::super::encode::EncodeReply;
use super::super::handle::HANDLE;
use super::super::reply::Replies;
use super::super::status::Failure;
use super::super::xdr::{Encode, padding};
use super::info::MAX_NAME;
use super::{Done, put_failure, put_ok};
use crate::vfs::{Attr, ListEntry, ListWindow, Listing, Object, Refusal, Refused, Vfs};

const COOKIE_DOT: u64 = 1;
const COOKIE_DOTDOT: u64 = 2;

/// Most bytes of one listing, whatever the client would take.
const MAX_LISTING: u32 = 128 * 1024;
/// `READDIR3resok` and `READDIRPLUS3resok` without entries, in bytes: attributes, verifier, the end
/// of the list, eof.
const FIXED: u32 = 88 + 8 + 4 + 4;
/// An entry without its name: "one follows", fileid, length of the name, cookie.
const ENTRY: u32 = 4 + 8 + 4 + 8;
/// What READDIRPLUS adds: `post_op_attr` and `post_op_fh3`.
const PLUS: u32 = 88 + 4 + 4 + HANDLE as u32;
/// Cost of the longest name.
const LONGEST: u32 = MAX_NAME + 1;

/// LOOKUP (3.3.3).
pub fn lookup<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::DirOp<'_>, out: &mut Replies) -> Done {
    if args.name.len() > MAX_NAME as usize {
        return refuse(cx, args.dir, nfsstat3::NFS3ERR_NAMETOOLONG, out);
    }
    match cx.on(args.dir, |vfs, request, dir| vfs.lookup(request, dir, args.name))? {
        Ok(found) => {
            put_ok(out);
            cx.core.handles.put(out.head(), found.object);
            out.head().put_post_op(Some(&found.attr));
            out.head().put_post_op(Some(&found.dir_attr));
        }
        Err(failure) => put_failure(out, &failure),
    }
    Ok(())
}

/// READDIR (3.3.16).
pub fn readdir<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::ReadDir<'_>, out: &mut Replies) -> Done {
    let budget = Budget { total: args.count.min(MAX_LISTING), names: None };
    list(cx, args.dir, args.cookie, budget, out)
}

/// READDIRPLUS (3.3.17).
pub fn readdirplus<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::ReadDirPlus<'_>, out: &mut Replies) -> Done {
    let budget = Budget { total: args.maxcount.min(MAX_LISTING), names: Some(args.dircount) };
    list(cx, args.dir, args.cookie, budget, out)
}

/// What a listing may still take, in bytes.
#[derive(Clone, Copy, Debug)]
struct Budget {
    /// Of the whole result (`count`, `maxcount`).
    total: u32,
    /// Of fileids, names and cookies (`dircount`), which means a listing with attributes. It is what
    /// the client expects rather than what it can hold: the first entry may exceed it.
    names: Option<u32>,
}

impl Budget {
    /// Take an entry's cost, if it is left.
    fn take(&mut self, name: &[u8], first: bool) -> bool {
        let name = (name.len() + padding(name.len())) as u32;
        let cost = name + ENTRY + if self.names.is_some() { PLUS } else { 0 };
        let too_many_names = self.names.is_some_and(|left| name + ENTRY > left && !first);
        if cost > self.total || too_many_names {
            return false;
        }
        self.total -= cost;
        self.names = self.names.map(|left| left.saturating_sub(name + ENTRY));
        true
    }

    /// The window of entries that can fit; [`take`](Self::take) has the last word.
    fn window(&self, after: u64) -> ListWindow {
        let all = ListWindow { after, budget: self.total, entry_cost: ENTRY, with_attrs: self.names.is_some() };
        match self.names {
            None => all,
            // Whichever bound is met first, for names of a usual length.
            Some(names) if names / (ENTRY + 16) < self.total / (ENTRY + PLUS + 16) => {
                ListWindow { budget: names.max(ENTRY + LONGEST), ..all }
            }
            Some(_) => ListWindow { entry_cost: ENTRY + PLUS, ..all },
        }
    }
}

/// One entry on its way out.
struct Line<'a> {
    name: &'a [u8],
    fileid: u64,
    cookie: u64,
    full: Option<(Object, Attr)>,
}

impl<'a> From<&'a ListEntry> for Line<'a> {
    fn from(entry: &'a ListEntry) -> Self {
        Self { name: &entry.name, fileid: entry.fileid, cookie: entry.cookie, full: entry.full }
    }
}

fn list<V: Vfs>(
    cx: &mut Context<'_, '_, V>,
    dir: args::Handle<'_>,
    after: u64,
    budget: Budget,
    out: &mut Replies,
) -> Done {
    let Some(total) = budget.total.checked_sub(FIXED) else {
        return refuse(cx, dir, nfsstat3::NFS3ERR_TOOSMALL, out);
    };
    let mut budget = Budget { total, ..budget };
    let (object, listing) = match entries(cx, dir, after, &budget)? {
        Ok(answer) => answer,
        Err(failure) => {
            put_failure(out, &failure);
            return Ok(());
        }
    };
    let dots = dots(cx, dir, after, (object, listing.dir_attr))?;
    let mut lines = dots.into_iter().flatten().chain(listing.entries.iter().map(Line::from)).peekable();
    let nothing_fits = match lines.peek() {
        Some(first) => !budget.clone().take(first.name, true),
        None => !listing.eof,
    };
    if nothing_fits {
        put_failure(out, &Failure { status: nfsstat3::NFS3ERR_TOOSMALL, attr: Some(listing.dir_attr) });
        return Ok(());
    }
    put_ok(out);
    out.head().put_post_op(Some(&listing.dir_attr));
    // The cookie verifier: cookies stay valid for ever, so it never changes.
    out.head().put_u64(0);
    let complete = put_lines(cx, lines, &mut budget, out);
    out.head().put_bool(false);
    out.head().put_bool(complete && listing.eof);
    Ok(())
}

/// Append the lines that fit; whether all did.
fn put_lines<'a, V: Vfs>(
    cx: &Context<'_, '_, V>,
    lines: impl Iterator<Item = Line<'a>>,
    budget: &mut Budget,
    out: &mut Replies,
) -> bool {
    let plus = budget.names.is_some();
    let head = out.head();
    for (index, line) in lines.enumerate() {
        if !budget.take(line.name, index == 0) {
            return false;
        }
        head.put_bool(true);
        head.put_u64(line.fileid);
        head.put_opaque(line.name);
        head.put_u64(line.cookie);
        if plus {
            head.put_post_op(line.full.as_ref().map(|(_, attr)| attr));
            head.put_bool(line.full.is_some());
            if let Some((object, _)) = line.full {
                cx.core.handles.put(head, object);
            }
        }
    }
    true
}

/// The directory and its own entries. No room for any of these is no failure here: "." and ".." may
/// still fit.
fn entries<V: Vfs>(
    cx: &mut Context<'_, '_, V>,
    dir: args::Handle<'_>,
    after: u64,
    budget: &Budget,
) -> Answered<(Object, Listing)> {
    let window = budget.window(if after <= COOKIE_DOTDOT { 0 } else { after });
    cx.on(dir, |vfs, request, dir| {
        let answer = match vfs.list(request, dir, window)? {
            Err(Refused { why: Refusal::TooSmall, attr: Some(dir_attr) }) => {
                Ok(Listing { dir_attr, entries: Vec::new(), eof: false })
            }
            answer => answer,
        };
        Ok(answer.map(|listing| (dir, listing)))
    })
}

/// "." and "..", as far as they come after the cookie.
fn dots<V: Vfs>(
    cx: &mut Context<'_, '_, V>,
    dir: args::Handle<'_>,
    after: u64,
    own: (Object, Attr),
) -> Result<[Option<Line<'static>>; 2], Halt> {
    let dot =
        (after < COOKIE_DOT).then_some(Line { name: b".", fileid: own.1.fileid, cookie: COOKIE_DOT, full: Some(own) });
    if after >= COOKIE_DOTDOT {
        return Ok([dot, None]);
    }
    // Reading a directory needs no right to search it, but this lookup does: without that right the
    // parent's attributes stay untold.
    let parent = cx.on(dir, |vfs, request, dir| vfs.lookup(request, dir, b".."))?.ok();
    let full = parent.map(|found| (found.object, found.attr));
    let fileid = full.map_or(own.1.fileid, |(_, attr)| attr.fileid);
    Ok([dot, Some(Line { name: b"..", fileid, cookie: COOKIE_DOTDOT, full })])
}

/// Fail with `status` and the directory's attributes.
fn refuse<V: Vfs>(cx: &mut Context<'_, '_, V>, dir: args::Handle<'_>, status: nfsstat3, out: &mut Replies) -> Done {
    let failure = match cx.on(dir, |vfs, request, dir| vfs.getattr(request, dir))? {
        Ok(attr) => Failure { status, attr: Some(attr) },
        Err(failure) => failure,
    };
    put_failure(out, &failure);
    Ok(())
}
