//! Reading a pack's table, and checking its frames against it.

use bytes::Bytes;

use super::{
    END_MAGIC, FRAME_HEADER_LEN, Frame, HEADER_LEN, MAGIC, MAX_FRAMES, MAX_PACK, PackId, ROW_LEN, Span, TRAILER_LEN,
    Totals, VERSION, decode, table_digest,
};
use crate::chunk::ChunkId;
use crate::chunk::blob::BlobStore;
use crate::error::{Error, Result};

/// The table of a pack, checked against its digest and against the length of the blob.
pub async fn read_table(blobs: &dyn BlobStore, pack: PackId) -> Result<(Vec<Frame>, Totals)> {
    let name = pack.name();
    let len = blobs.len(&name).await?.ok_or_else(|| damaged(pack, "it is not there"))?;
    if len < (HEADER_LEN + TRAILER_LEN) as u64 || len > MAX_PACK as u64 {
        return Err(damaged(pack, format!("{len} bytes cannot be a pack")));
    }
    let header = blobs.get_range(&name, 0..HEADER_LEN as u64).await?;
    check_header(pack, &header)?;
    let trailer = blobs.get_range(&name, len - TRAILER_LEN as u64..len).await?;
    let totals = parse_trailer(pack, &trailer)?;
    let table_len = (totals.chunks as usize * ROW_LEN + TRAILER_LEN) as u64;
    let table_at = len.checked_sub(table_len).filter(|at| *at >= HEADER_LEN as u64);
    let table_at = table_at.ok_or_else(|| damaged(pack, format!("{} chunks do not fit in it", totals.chunks)))?;
    let tail = blobs.get_range(&name, table_at..len).await?;
    parse_table(pack, &header, &tail, table_at).map(|frames| (frames, totals))
}

/// Check every frame of a whole pack against the table and the chunk's name. Returns the chunks that
/// are bad.
pub fn check_frames(pack: &Bytes, frames: &[Frame]) -> Vec<ChunkId> {
    frames.iter().filter(|frame| !frame_is_good(pack, frame)).map(|frame| frame.id).collect()
}

fn frame_is_good(pack: &Bytes, Frame { id, span }: &Frame) -> bool {
    let payload = span.payload();
    let (start, end) = (payload.start as usize, payload.end as usize);
    if end > pack.len() {
        return false;
    }
    let header = &pack[span.offset as usize..start];
    let told = header[..32] == *id.as_bytes() && header[32..] == span.encode_lengths();
    told && decode(pack.slice(start..end), span).is_ok_and(|raw| ChunkId::of(&raw) == *id)
}

fn check_header(pack: PackId, header: &[u8]) -> Result<()> {
    if header[..8] != MAGIC {
        return Err(damaged(pack, "it does not begin like a pack"));
    }
    let (version, flags) = (u16::from_be_bytes([header[8], header[9]]), u16::from_be_bytes([header[10], header[11]]));
    if (version, flags) != (VERSION, 0) {
        let known = format!("this program reads version {VERSION} without flags");
        let what = format!("pack {pack} has format version {version} and flags {flags:#06x}; {known}");
        return Err(Error::invalid(what).remedy("run the version of mimeo that wrote it, or a newer one"));
    }
    if header[..] != super::header(pack) {
        return Err(damaged(pack, "it says that it is another pack"));
    }
    Ok(())
}

fn parse_trailer(pack: PackId, trailer: &[u8]) -> Result<Totals> {
    if trailer[TRAILER_LEN - 8..] != END_MAGIC {
        return Err(damaged(pack, "it does not end like a pack"));
    }
    let long = |at: usize| u64::from_be_bytes(*trailer[at..].first_chunk().expect("the trailer is long enough"));
    let chunks = u32::from_be_bytes(*trailer[16..].first_chunk().expect("the trailer is long enough"));
    if chunks as usize > MAX_FRAMES {
        return Err(damaged(pack, format!("{chunks} chunks are more than a pack may have")));
    }
    Ok(Totals { chunks, raw_bytes: long(0), stored_bytes: long(8) })
}

/// `tail` is table and trailer, at `table_at` in the pack.
fn parse_table(pack: PackId, header: &[u8], tail: &[u8], table_at: u64) -> Result<Vec<Frame>> {
    let (covered, rest) = tail.split_at(tail.len() - 40);
    if table_digest(header, covered).as_bytes() != &rest[..32] {
        return Err(damaged(pack, "its table is not what its digest says"));
    }
    let rows = &tail[..tail.len() - TRAILER_LEN];
    let frames: Option<Vec<Frame>> = rows.chunks_exact(ROW_LEN).map(parse_row).collect();
    let frames = frames.ok_or_else(|| damaged(pack, "a row of its table cannot be"))?;
    let end = frames.iter().try_fold(HEADER_LEN as u64, |at, frame| {
        (u64::from(frame.span.offset) == at).then(|| frame.span.payload().end)
    });
    if end != Some(table_at) {
        return Err(damaged(pack, "its frames leave gaps or overlap"));
    }
    Ok(frames)
}

fn parse_row(row: &[u8]) -> Option<Frame> {
    let (id, span) = row.split_at_checked(32)?;
    Some(Frame { id: ChunkId::from_slice(id)?, span: Span::decode(span.try_into().ok()?)? })
}

fn damaged(pack: PackId, why: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("pack {pack} is damaged: {why}"))
        .remedy("restore this file from a backup, or import the images that use it again")
}

const _: () = assert!(FRAME_HEADER_LEN == 32 + Span::LEN - 4);
