//! Everything on the way in that decodes bytes from the network, without a server around it: for
//! fuzzing (`tests/fuzz`) and for tests. None of these may panic or take unbounded memory.

use super::args;
use super::handle::HandleKeys;
use super::mount::{self, Path};
use super::portmap::{self, Mapping};
use super::proc3;
use super::record::RecordBuffer;
use super::rpc::{self, Call};
use super::xdr::{Decode, Garbage};

/// All decoders on the same bytes.
pub fn decode(bytes: &[u8]) {
    stream(bytes);
    call(bytes);
    handle(bytes);
    (0..=21).for_each(|procedure| arguments(procedure, bytes));
    (0..=5).for_each(|procedure| mount_arguments(procedure, bytes));
}

/// `bytes` as a connection's stream: record marks, and each record as a call.
pub fn stream(bytes: &[u8]) {
    let mut buffer = RecordBuffer::new();
    for piece in bytes.chunks(509) {
        buffer.room().extend_from_slice(piece);
        buffer.filled();
        loop {
            match buffer.next_record() {
                Ok(Some(record)) => call(record),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// `bytes` as one record: call header, credential, and the arguments of the procedure it names.
pub fn call(bytes: &[u8]) {
    let Ok((xid, rest)) = rpc::begin(bytes) else { return };
    let Ok(call) = Call::decode(xid, rest) else { return };
    call.caller(([127, 0, 0, 1], 1).into());
    match call.program {
        proc3::PROGRAM => arguments(call.procedure, call.arguments),
        mount::PROGRAM => mount_arguments(call.procedure, call.arguments),
        portmap::PROGRAM => drop(Mapping::decode_all(call.arguments)),
        _ => {}
    }
}

/// `bytes` as a file handle.
pub fn handle(bytes: &[u8]) {
    let keys = HandleKeys::new(vec![(0, [0; 32]), (1, [1; 32])]);
    if let Ok(object) = keys.decode(bytes) {
        assert_eq!(keys.decode(&keys.encode(object)), Ok(object));
    }
}

/// `bytes` as the arguments of an NFSv3 procedure.
pub fn arguments(procedure: u32, bytes: &[u8]) {
    match procedure {
        0 => check::<()>(bytes),
        1 | 5 | 18 | 19 | 20 => check::<args::Object<'_>>(bytes),
        2 => check::<args::SetAttr<'_>>(bytes),
        3 | 12 | 13 => check::<args::DirOp<'_>>(bytes),
        4 => check::<args::Access<'_>>(bytes),
        6 | 21 => check::<args::Range<'_>>(bytes),
        7 => check::<args::Write<'_>>(bytes),
        8 => check::<args::Create<'_>>(bytes),
        9 => check::<args::MkDir<'_>>(bytes),
        10 => check::<args::SymLink<'_>>(bytes),
        11 => check::<args::MkNod<'_>>(bytes),
        14 => check::<args::Rename<'_>>(bytes),
        15 => check::<args::Link<'_>>(bytes),
        16 => check::<args::ReadDir<'_>>(bytes),
        17 => check::<args::ReadDirPlus<'_>>(bytes),
        _ => {}
    }
}

/// `bytes` as the arguments of a MOUNT procedure.
pub fn mount_arguments(procedure: u32, bytes: &[u8]) {
    match procedure {
        1 | 3 => check::<Path<'_>>(bytes),
        _ => check::<()>(bytes),
    }
}

/// What decodes must not decode with a byte more.
fn check<'a, T: Decode<'a>>(bytes: &'a [u8]) {
    if T::decode_all(bytes).is_ok()
        && let Some(shorter) = bytes.len().checked_sub(4)
    {
        let cut: Result<T, Garbage> = T::decode_all(&bytes[..shorter]);
        assert!(cut.is_err(), "the same type cannot also end 4 bytes earlier");
    }
}
