use super::*;
use crate::chunk::blob::{BlobStore, MemoryBlobs};
use crate::error::ErrorKind;

const ID: PackId = PackId { epoch: 0x1234, seq: 0xab };

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A pack of three chunks: one that does not compress, one that does, one byte.
fn sample() -> (SealedPack, Vec<Frame>) {
    let mut pack = PackBuilder::new(ID, MIN_PACK);
    for raw in [noise(1, 300), b"to be or not to be ".repeat(50), vec![7]] {
        let (payload, encoding) = encode(&raw, 1);
        pack.push(ChunkId::of(&raw), raw.len(), &payload, encoding);
    }
    let frames = pack.frames().to_vec();
    (pack.seal(), frames)
}

async fn table_of(bytes: Bytes) -> crate::error::Result<Vec<Frame>> {
    let blobs = MemoryBlobs::new();
    blobs.put(&ID.name(), bytes).await.unwrap();
    read_table(&blobs, ID).await.map(|(frames, _)| frames)
}

fn span(stored_len: u32, raw_len: u32, encoding: Encoding) -> Span {
    Span { offset: HEADER_LEN as u32, stored_len, raw_len, encoding }
}

#[test]
fn names_round_trip_and_others_are_refused() {
    assert_eq!(ID.name(), "packs/0000000000001234-000000ab.pack");
    assert_eq!(PackId::parse(&ID.name()), Some(ID));
    assert_eq!(PackId::decode(&ID.encode()), ID);
    for other in [
        "packs/1234-ab.pack",
        "packs/0000000000001234-000000AB.pack",
        "packs/x",
        "tmp",
        "packs/+000000000001234-000000ab.pack",
    ] {
        assert_eq!(PackId::parse(other), None, "{other}");
    }
}

#[tokio::test]
async fn a_pack_is_read_back_from_its_table() {
    let (pack, frames) = sample();
    assert_eq!(table_of(pack.bytes.clone()).await.unwrap(), frames);
    assert_eq!(check_frames(&pack.bytes, &frames), []);
    assert_eq!((pack.totals.chunks, pack.totals.raw_bytes), (3, 300 + 950 + 1));
    let encodings: Vec<_> = frames.iter().map(|frame| frame.span.encoding).collect();
    assert_eq!(encodings, [Encoding::Raw, Encoding::Zstd, Encoding::Raw]);
    assert_eq!(pack.totals.stored_bytes, frames.iter().map(|frame| u64::from(frame.span.stored_len)).sum::<u64>());
}

#[tokio::test]
async fn every_damaged_byte_is_found() {
    let (pack, frames) = sample();
    let table_at = frames.last().unwrap().span.payload().end as usize;
    for at in 0..pack.bytes.len() {
        let mut bytes = pack.bytes.to_vec();
        bytes[at] ^= 0x20;
        let bytes = Bytes::from(bytes);
        if (HEADER_LEN..table_at).contains(&at) {
            let hurt = frames.iter().find(|frame| at < frame.span.payload().end as usize).unwrap();
            assert_eq!(check_frames(&bytes, &frames), [hurt.id], "byte {at}");
        } else {
            let error = table_of(bytes).await.unwrap_err();
            assert!(error.what().contains(&ID.name()), "byte {at}: {error}");
        }
    }
}

#[tokio::test]
async fn a_pack_cut_short_or_grown_is_refused() {
    let (pack, frames) = sample();
    for len in 0..pack.bytes.len() {
        let error = table_of(pack.bytes.slice(..len)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{len} bytes");
        assert!(error.what().contains(&ID.name()), "{len} bytes: {error}");
    }
    assert_eq!(check_frames(&pack.bytes.slice(..100), &frames).len(), 3);
    let grown = [&pack.bytes[..], b"\0"].concat();
    assert_eq!(table_of(grown.into()).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_pack_under_another_name_or_from_the_future_is_refused() {
    let (pack, _) = sample();
    let other = PackId { seq: 1, ..ID };
    let blobs = MemoryBlobs::new();
    blobs.put(&other.name(), pack.bytes.clone()).await.unwrap();
    assert!(read_table(&blobs, other).await.unwrap_err().what().contains("another pack"));
    assert!(read_table(&blobs, ID).await.unwrap_err().what().contains("not there"));
    let mut newer = pack.bytes.to_vec();
    newer[9] = 2;
    let error = table_of(newer.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.what().contains("version 2"), "{error}");
}

/// A table that lies, under a digest that is right.
async fn table_with(frames: &[Frame], chunks: u32) -> String {
    let mut bytes = header(ID).to_vec();
    bytes.extend_from_slice(&[0; 200]);
    let at = bytes.len();
    for frame in frames {
        bytes.extend_from_slice(frame.id.as_bytes());
        bytes.extend_from_slice(&frame.span.encode());
    }
    bytes.extend_from_slice(&[0; 16]);
    bytes.extend_from_slice(&chunks.to_be_bytes());
    let digest = table_digest(&header(ID), &bytes[at..]);
    bytes.extend_from_slice(digest.as_bytes());
    bytes.extend_from_slice(&END_MAGIC);
    table_of(bytes.into()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn lying_tables_are_refused() {
    let id = ChunkId([1; 32]);
    let frame = |span| Frame { id, span };
    assert!(table_with(&[], u32::MAX).await.contains("more than a pack may have"));
    assert!(table_with(&[], 5000).await.contains("do not fit"));
    assert!(table_with(&[], 0).await.contains("gaps"));
    assert!(table_with(&[frame(span(10, 10, Encoding::Raw))], 1).await.contains("gaps"));
    assert!(table_with(&[frame(span(u32::MAX, u32::MAX, Encoding::Raw))], 1).await.contains("row"));
    assert!(table_with(&[frame(span(10, 11, Encoding::Raw))], 1).await.contains("row"));
}

#[test]
fn spans_that_cannot_be_are_refused() {
    let good = span(10, 20, Encoding::Zstd);
    assert_eq!(Span::decode(&good.encode()), Some(good));
    let max = MAX_CHUNK as u32;
    let mut unknown = good.encode();
    unknown[12] = 2;
    assert_eq!(Span::decode(&unknown), None);
    for bad in [
        span(20, 20, Encoding::Zstd),
        span(0, 20, Encoding::Zstd),
        span(0, 0, Encoding::Raw),
        span(max + 1, max + 1, Encoding::Raw),
        span(10, max + 1, Encoding::Zstd),
        Span { offset: 0, ..good },
        Span { offset: u32::MAX, ..good },
    ] {
        assert_eq!(Span::decode(&bad.encode()), None, "{bad:?}");
    }
    let location = Location { pack: ID, span: good };
    assert_eq!(Location::decode(&location.encode()), Some(location));
    assert_eq!(Location::decode(&location.encode()[..24]), None);
}

#[test]
fn compression_is_kept_where_it_pays() {
    let text = b"a page of an operating system ".repeat(200);
    let (small, encoding) = encode(&text, 1);
    assert_eq!(encoding, Encoding::Zstd);
    assert!(small.len() < text.len() / 10);
    assert_eq!(encode(&text, 0).1, Encoding::Raw);
    assert_eq!(encode(&noise(1, MAX_CHUNK), 3).1, Encoding::Raw);
    for len in 1..40 {
        let zeros = vec![0; len];
        let (payload, encoding) = encode(&zeros, 1);
        let span = span(payload.len() as u32, len as u32, encoding);
        assert_eq!(Span::decode(&span.encode()), Some(span));
        assert_eq!(decode(payload.into_owned().into(), &span).unwrap(), zeros);
    }
    // One part in sixteen is just not saved: 15.5 of 16 parts are noise.
    let mut stubborn = noise(2, 65536);
    stubborn[63488..].fill(0);
    assert_eq!(encode(&stubborn, 1).1, Encoding::Raw);
}

#[test]
fn a_bomb_takes_no_more_than_its_raw_length() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let payload = Bytes::from(bomb);
    for raw_len in [1, MAX_CHUNK as u32] {
        let error = decode(payload.clone(), &span(payload.len() as u32, raw_len, Encoding::Zstd)).unwrap_err();
        assert!(error.contains("does not decompress"), "{error}");
    }
    let short = Bytes::from(zstd::bulk::compress(&[5; 1000], 1).unwrap());
    let lie = span(short.len() as u32, 1001, Encoding::Zstd);
    assert_eq!(decode(short.clone(), &lie).unwrap_err(), "it has 1000 bytes instead of 1001");
    assert!(decode(short.slice(1..), &lie).is_err());
}

#[test]
fn a_pack_never_exceeds_its_limits() {
    let mut pack = PackBuilder::new(ID, 0);
    let mut n = 0;
    while pack.has_room(5000) {
        let raw = noise(n, 5000);
        pack.push(ChunkId::of(&raw), 5000, &raw, Encoding::Raw);
        n += 1;
    }
    assert!(n > 50);
    assert!(pack.has_room(1));
    let sealed = pack.seal();
    assert!(sealed.bytes.len() <= MIN_PACK && sealed.bytes.len() > MIN_PACK - 5100);
    assert!(PackBuilder::new(ID, 0).has_room(MAX_CHUNK));
    let mut many = PackBuilder::new(ID, MAX_PACK);
    for n in 0..MAX_FRAMES as u32 {
        assert!(many.has_room(4));
        many.push(ChunkId::of(&n.to_be_bytes()), 4, &n.to_be_bytes(), Encoding::Raw);
    }
    assert!(!many.has_room(1));
}
