//! Traces are what was written, and nothing else is a trace.

use std::io::Read as _;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn name(text: &[u8]) -> Name {
    text.into()
}

fn op(at_micros: u64, took_micros: u64, call: Call) -> Op {
    Op { at_micros, took_micros, uid: 0, gid: 0, status: 0, call }
}

fn read(file: u32, offset: u64, got: u32) -> Call {
    Call::Object { object: NodeId(file), verb: Verb::Read { offset, len: 65536, got } }
}

fn header() -> Header {
    Header { version: "debian@v3".into(), clone: "desk-1".into(), started_secs: 1_700_000_000, client: "6.1".into() }
}

/// One of each kind of call, over `etc`, `etc/motd` and an object without a place.
fn sample() -> Vec<Item> {
    let node = |parent: Option<u32>, text: &[u8]| Item::Node(Node { parent: parent.map(NodeId), name: name(text) });
    let (root, etc, motd, lost) = (NodeId(0), NodeId(1), NodeId(2), NodeId(3));
    let new = NewAttrs { mode: Some(0o644), size: Some(0), mtime: SetTime::Client, ..NewAttrs::default() };
    let on = |object, verb| Call::Object { object, verb };
    let named = |dir, text: &[u8], verb, object| Call::Name { dir, name: name(text), verb, object };
    let calls = vec![
        Call::Mount,
        on(root, Verb::FsInfo),
        named(root, b"etc", NameVerb::Lookup, Some(etc)),
        named(etc, b"gone", NameVerb::Lookup, None),
        named(etc, b"motd", NameVerb::Create(Creation::Guarded(new)), Some(motd)),
        named(etc, b"x", NameVerb::Create(Creation::Exclusive([7; 8])), Some(motd)),
        named(etc, b"l", NameVerb::SymLink { new, target: name(b"/a/\xff") }, None),
        named(etc, b"n", NameVerb::MakeNode { new, what: Special::Fifo }, None),
        named(etc, b"d", NameVerb::RemoveDir, None),
        on(motd, Verb::SetAttr(new)),
        on(motd, Verb::Access(0x3f)),
        read(2, 4096, 100),
        on(motd, Verb::Write { offset: u64::MAX, len: 9, stable: Stable::Unstable }),
        on(motd, Verb::Commit { offset: 0, len: 0 }),
        on(etc, Verb::List { from_start: true, plus: true, max_bytes: 8192 }),
        on(lost, Verb::GetAttr),
        Call::Rename { from_dir: etc, from: name(b"a"), to_dir: root, to: name(b"b") },
        Call::Link { object: motd, dir: root, name: name(b"c") },
    ];
    let nodes = vec![node(Some(0), b"etc"), node(Some(1), b"motd"), node(None, b"")];
    let ops = (0u64..).zip(calls).map(|(at, call)| Item::Op(op(at * 10, 3, call)));
    nodes.into_iter().chain(ops).collect()
}

fn written(items: &[Item], lost: u64) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    items.iter().for_each(|item| writer.item(item).unwrap());
    writer.finish(lost).unwrap()
}

#[test]
fn a_trace_is_read_as_it_was_written() {
    let items = sample();
    let trace = Trace::read("t", &written(&items, 5)[..]).unwrap();
    assert_eq!((&trace.header, trace.lost), (&header(), 5));
    let ops: Vec<Item> = trace.ops().iter().cloned().map(Item::Op).collect();
    assert_eq!(ops, items[3..]);
    assert_eq!(trace.path(NodeId(0)), Some(vec![]));
    assert_eq!(trace.path(NodeId(2)), Some(b"etc/motd".to_vec()));
    assert_eq!(trace.path(NodeId(3)), None, "an object without a place");
    assert_eq!(trace.path(NodeId(4)), None, "no object");
    assert_eq!(trace.made(), [false, false, true, false], "etc was found, etc/motd made");
}

/// Postcard numbers variants by their order: a change of it, or of a field, is another format.
#[test]
fn the_bytes_are_frozen() {
    let file = written(&sample(), 5);
    assert_eq!(&file[..9], b"mimeoTRC\x01");
    let body = zstd::decode_all(&file[9..]).unwrap();
    let digest = blake3::hash(&body).to_hex();
    assert_eq!(&digest[..32], "6c8fee6b08befb21bc0a4896195adaa8", "the format changed: docs/formats/trace.md, FORMAT");
}

#[test]
fn operations_are_in_the_order_of_their_calls() {
    let items = [20, 10, 30].map(|at| Item::Op(op(at, 1, Call::Mount)));
    let trace = Trace::read("t", &written(&items, 0)[..]).unwrap();
    assert_eq!(trace.ops().iter().map(|op| op.at_micros).collect::<Vec<_>>(), [10, 20, 30]);
}

#[test]
fn a_trace_that_is_cut_or_changed_is_refused() {
    let good = written(&sample(), 0);
    for at in 0..good.len() {
        let error = Trace::read("boot", &good[..at]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {at}");
        assert!(error.to_string().contains("trace boot"), "{error}");
        let mut bad = good.clone();
        bad[at] ^= 1;
        if let Ok(read) = Trace::read("boot", &bad[..]) {
            // Some bits of zstd's frame header say nothing about the content.
            assert_eq!(read, Trace::read("boot", &good[..]).unwrap(), "byte {at}");
        }
    }
}

#[test]
fn numbers_and_names_beyond_the_bounds_are_refused() {
    let bad = [
        Item::Node(Node { parent: Some(NodeId(1)), name: name(b"own child") }),
        Item::Node(Node { parent: Some(NodeId(0)), name: vec![b'x'; 4097].into() }),
        Item::Op(op(0, 0, read(1, 0, 0))),
        Item::Op(op(0, 0, Call::Link { object: NodeId(0), dir: NodeId(0), name: vec![b'x'; 4097].into() })),
    ];
    for item in bad {
        assert!(Writer::new(Vec::new(), &header()).unwrap().item(&item).is_err(), "{item:?}");
        let body = [postcard::to_stdvec(&header()).unwrap(), postcard::to_stdvec(&item).unwrap()].concat();
        let file = [b"mimeoTRC\x01".to_vec(), zstd::encode_all(&body[..], 1).unwrap()].concat();
        assert_eq!(Trace::read("t", &file[..]).unwrap_err().kind(), ErrorKind::Corrupt, "{item:?}");
    }
}

#[test]
fn a_bomb_ends_at_the_bound() {
    let zeros = zstd::encode_all(std::io::repeat(0).take((256 << 20) + 1), 1).unwrap();
    let error = Trace::read("t", &[b"mimeoTRC\x01".to_vec(), zeros].concat()[..]).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let good = postcard::to_stdvec(&header()).unwrap();
        for body in [body.clone(), [good, body].concat()] {
            let file = [b"mimeoTRC\x01".to_vec(), zstd::encode_all(&body[..], 1).unwrap()].concat();
            let _ = Trace::read("t", &file[..]);
        }
    }
}

/// 0 and 1 are asked together; 2 when 1 was answered and 0 not yet; 3 after both.
#[test]
fn a_call_waits_for_the_last_answer_before_it() {
    let ops = [(100, 50), (101, 9), (115, 5), (160, 1)].map(|(at, took)| op(at, took, Call::Mount));
    let pace = pace(&ops).iter().map(|pace| (pace.after, pace.think_micros)).collect::<Vec<_>>();
    assert_eq!(pace, [(None, 100), (None, 101), (Some(1), 5), (Some(0), 10)]);
}

#[test]
fn answers_at_once_are_reasons_for_later_calls_only() {
    let ops = [5, 5, 5, 6].map(|at| op(at, 0, Call::Mount));
    let pace = pace(&ops).iter().map(|pace| pace.after).collect::<Vec<_>>();
    assert_eq!(pace, [None, Some(0), Some(1), Some(2)]);
}

#[test]
fn the_working_set_counts_each_byte_once() {
    let reads = [(2, 0, 100), (2, 50, 100), (2, 150, 10), (2, 500, 0), (2, 200, 1), (1, 7, 3)];
    let node = |text: &[u8]| Item::Node(Node { parent: Some(NodeId(0)), name: name(text) });
    let ops = reads.map(|(file, offset, got)| Item::Op(op(offset, 1, read(file, offset, got))));
    let items: Vec<Item> = [node(b"a"), node(b"b")].into_iter().chain(ops).collect();
    let trace = Trace::read("t", &written(&items, 0)[..]).unwrap();
    let set = WorkingSet::of(&trace);
    let files: Vec<_> = set.files().map(|(file, ranges)| (file.0, ranges.to_vec())).collect();
    assert_eq!(files, [(1, vec![7..10]), (2, vec![0..160, 200..201])]);
    assert_eq!(set.bytes(), 3 + 161);
    let totals = Totals::of(&trace);
    assert_eq!((totals.ops, totals.bytes_read, totals.micros), (6, 214, 501));
    assert_eq!(totals.by_procedure["READ"], 6);
}

/// The boots that come with the source: also what a later version of this program has to read.
#[test]
fn the_recorded_boots_are_whole() {
    let boots = [
        ("os-tree", &include_bytes!("../../bench/traces/os-tree.trace")[..], 4131, 293),
        ("vm-disk", &include_bytes!("../../bench/traces/vm-disk.trace")[..], 856, 1),
    ];
    for (name, file, ops, files) in boots {
        let trace = Trace::read(name, file).unwrap();
        let set = WorkingSet::of(&trace);
        assert_eq!((trace.ops().len(), set.files().count(), trace.lost), (ops, files, 0), "{name}");
        assert!(set.files().all(|(file, _)| trace.path(file).is_some()), "{name}: a file without a place");
        let pace = pace(trace.ops());
        assert!(pace.iter().enumerate().all(|(i, pace)| pace.after.is_none_or(|after| after < i)), "{name}");
        assert!(pace.iter().skip(1).filter(|pace| pace.after.is_none()).count() < 4, "{name}: nothing waits");
    }
}
