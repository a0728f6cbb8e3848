//! The procedures that make names, move them and take them away.

use nfsserve::nfs::{nfsstat3, sattr3};

use super::super::args::{self, How, Node};
use super::super::dispatch::Context;
use super::super::encode::EncodeReply;
use super::super::reply::Replies;
use super::super::status::Failure;
use super::Done;
use super::change::{change, device, new_attr, put_failure, put_linked, put_made, put_renamed, put_wcc};
use crate::vfs::{CreateHow, NewObject, Vfs};

/// CREATE (3.3.8).
pub fn create<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Create<'_>, out: &mut Replies) -> Done {
    let how = match args.how {
        How::Unchecked(new) => CreateHow::Unchecked(new_attr(&new)),
        How::Guarded(new) => CreateHow::Guarded(new_attr(&new)),
        How::Exclusive(verifier) => CreateHow::Exclusive(verifier),
    };
    let place = cx.place(args.place);
    change(cx, place, put_made, out, |vfs, request, place| vfs.create(request, place, how))?;
    Ok(())
}

/// MKDIR (3.3.9).
pub fn mkdir<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::MkDir<'_>, out: &mut Replies) -> Done {
    make(cx, args.place, NewObject::Directory, &args.new, out)
}

/// SYMLINK (3.3.10).
pub fn symlink<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::SymLink<'_>, out: &mut Replies) -> Done {
    make(cx, args.place, NewObject::Symlink(args.target), &args.new, out)
}

/// MKNOD (3.3.11).
pub fn mknod<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::MkNod<'_>, out: &mut Replies) -> Done {
    let (what, new) = match args.what {
        Node::Char(new, numbers) => {
            let (major, minor) = device(numbers);
            (NewObject::Char(major, minor), new)
        }
        Node::Block(new, numbers) => {
            let (major, minor) = device(numbers);
            (NewObject::Block(major, minor), new)
        }
        Node::Socket(new) => (NewObject::Socket, new),
        Node::Fifo(new) => (NewObject::Fifo, new),
        Node::Other => {
            let failure = cx.fail(args.place.dir, nfsstat3::NFS3ERR_BADTYPE)?;
            put_failure(out, &failure);
            return Ok(());
        }
    };
    make(cx, args.place, what, &new, out)
}

fn make<V: Vfs>(
    cx: &mut Context<'_, '_, V>,
    place: args::DirOp<'_>,
    what: NewObject<'_>,
    new: &sattr3,
    out: &mut Replies,
) -> Done {
    let (place, new) = (cx.place(place), new_attr(new));
    change(cx, place, put_made, out, |vfs, request, place| vfs.make(request, place, what, new))?;
    Ok(())
}

/// REMOVE (3.3.12).
pub fn remove<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::DirOp<'_>, out: &mut Replies) -> Done {
    let place = cx.place(args);
    change(cx, place, put_wcc, out, |vfs, request, place| vfs.remove(request, place))?;
    Ok(())
}

/// RMDIR (3.3.13).
pub fn rmdir<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::DirOp<'_>, out: &mut Replies) -> Done {
    let place = cx.place(args);
    change(cx, place, put_wcc, out, |vfs, request, place| vfs.rmdir(request, place))?;
    Ok(())
}

/// RENAME (3.3.14).
pub fn rename<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Rename<'_>, out: &mut Replies) -> Done {
    let places = cx.place(args.from).and_then(|from| Ok((from, cx.place(args.to)?)));
    match cx.change(places, put_renamed, |vfs, request, (from, to)| vfs.rename(request, from, to))? {
        Ok(changed) => put_renamed(&changed, &cx.core.handles, out.head()),
        Err(Failure { status, .. }) => {
            let (from, to) = (cx.attr(args.from.dir)?, cx.attr(args.to.dir)?);
            out.head().put_status(status);
            out.head().put_unchanged(from.as_ref());
            out.head().put_unchanged(to.as_ref());
        }
    }
    Ok(())
}

/// LINK (3.3.15).
pub fn link<V: Vfs>(cx: &mut Context<'_, '_, V>, args: args::Link<'_>, out: &mut Replies) -> Done {
    let places = cx.object(args.file).and_then(|file| Ok((file, cx.place(args.place)?)));
    match cx.change(places, put_linked, |vfs, request, (file, to)| vfs.link(request, file, to))? {
        Ok(changed) => put_linked(&changed, &cx.core.handles, out.head()),
        Err(Failure { status, .. }) => {
            let (file, dir) = (cx.attr(args.file)?, cx.attr(args.place.dir)?);
            out.head().put_status(status);
            out.head().put_post_op(file.as_ref());
            out.head().put_unchanged(dir.as_ref());
        }
    }
    Ok(())
}
