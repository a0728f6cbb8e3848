use super::*;

/// Bytes that any machine makes the same: BLAKE3's output stream, keyed by a number.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn cuts_digest(pieces: &[Piece]) -> String {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(&(piece.offset as u64).to_be_bytes());
        hasher.update(&(piece.len as u64).to_be_bytes());
    }
    hasher.finalize().to_hex()[..32].to_string()
}

/// Every byte is in exactly one piece or in an aligned zero block, and pieces obey their limits.
fn check_cover(section: &[u8], pieces: &[Piece]) {
    let mut at = 0;
    for piece in pieces {
        assert!(piece.len > 0 && piece.len <= MAX_CHUNK, "{piece:?}");
        assert!(at <= piece.offset, "{piece:?} overlaps");
        assert!(at == piece.offset || piece.offset % BLOCK == 0, "hole ends off a block at {piece:?}");
        assert!(is_zero(&section[at..piece.offset]), "bytes lost before {piece:?}");
        at = piece.offset + piece.len;
    }
    assert!(at <= section.len() && is_zero(&section[at..]), "bytes lost at the end");
}

#[test]
fn golden_cuts() {
    let section = noise(1, SECTION as usize);
    let pieces = cut(&section, Cutting::ContentDefined);
    check_cover(&section, &pieces);
    let first: Vec<usize> = pieces.iter().take(4).map(|piece| piece.len).collect();
    assert_eq!((pieces.len(), first), (224, vec![59602, 24641, 89585, 89879]));
    assert_eq!(cuts_digest(&pieces), "08c77bff1867303fed446b1f9f727201");
}

#[test]
fn golden_cuts_around_holes() {
    let mut section = noise(2, 5 * BLOCK * 4 + 777);
    section[3 * BLOCK..7 * BLOCK].fill(0);
    section[9 * BLOCK + 1..10 * BLOCK + 1].fill(0);
    let pieces = cut(&section, Cutting::ContentDefined);
    check_cover(&section, &pieces);
    assert_eq!(cuts_digest(&pieces), "bfa5cdeb238c6b7ced5bda869ecfd34e");
    let blocks = cut(&section, Cutting::FixedBlocks);
    check_cover(&section, &blocks);
    assert_eq!(blocks.len(), 21 - 4);
}

#[test]
fn nothing_and_zeros_have_no_pieces() {
    for cutting in [Cutting::ContentDefined, Cutting::FixedBlocks] {
        for len in [0, 1, 4095, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            assert_eq!(cut(&vec![0; len], cutting), [], "{len} zeros, {cutting:?}");
        }
    }
}

#[test]
fn a_short_file_is_one_piece() {
    for cutting in [Cutting::ContentDefined, Cutting::FixedBlocks] {
        for len in [1, 100, MIN_SIZE] {
            let data = noise(3, len);
            assert_eq!(cut(&data, cutting), [Piece { offset: 0, len }]);
        }
    }
}

#[test]
fn a_short_last_block_is_a_hole_only_if_zero() {
    let mut section = noise(4, BLOCK);
    section.extend_from_slice(&[0; 100]);
    assert_eq!(cut(&section, Cutting::FixedBlocks), [Piece { offset: 0, len: BLOCK }]);
    check_cover(&section, &cut(&section, Cutting::ContentDefined));
    *section.last_mut().unwrap() = 1;
    let tail = Piece { offset: BLOCK, len: 100 };
    assert_eq!(cut(&section, Cutting::FixedBlocks).last(), Some(&tail));
    let last = *cut(&section, Cutting::ContentDefined).last().unwrap();
    assert_eq!(last.offset + last.len, section.len());
}

#[test]
fn one_byte_makes_a_whole_block() {
    let mut section = vec![0; 4 * BLOCK];
    section[2 * BLOCK + 17] = 9;
    assert_eq!(cut(&section, Cutting::FixedBlocks), [Piece { offset: 2 * BLOCK, len: BLOCK }]);
    let pieces = cut(&section, Cutting::ContentDefined);
    check_cover(&section, &pieces);
    assert_eq!(pieces[0].offset, 2 * BLOCK);
    assert_eq!(pieces.iter().map(|piece| piece.len).sum::<usize>(), BLOCK);
}

#[test]
fn an_insertion_moves_few_cuts() {
    let before = noise(5, 4 << 20);
    let mut after = before.clone();
    after.splice(100_000..100_000, [1, 2, 3]);
    let set = |data: &[u8]| -> std::collections::HashSet<blake3::Hash> {
        cut(data, Cutting::ContentDefined).iter().map(|piece| blake3::hash(piece.of(data))).collect()
    };
    let (old, new) = (set(&before), set(&after));
    assert!(new.difference(&old).count() <= 3, "{} of {} chunks are new", new.difference(&old).count(), new.len());
}

#[test]
fn random_sections_are_covered() {
    for seed in 0..40_u64 {
        let dice = noise(seed, 64);
        let len = usize::from(u16::from_be_bytes([dice[0], dice[1]])) * 7 % (10 * BLOCK);
        let mut section = noise(seed + 1000, len);
        for pair in dice[2..18].chunks_exact(2) {
            let at = usize::from(pair[0]) * BLOCK / 16;
            let end = (at + usize::from(pair[1]) * 1024).min(len);
            section[at.min(end)..end].fill(0);
        }
        println!("seed {seed}, {len} bytes");
        check_cover(&section, &cut(&section, Cutting::ContentDefined));
        check_cover(&section, &cut(&section, Cutting::FixedBlocks));
    }
}

#[test]
fn zero_test_sees_every_byte() {
    for len in [0, 1, 127, 128, 129, 1000] {
        assert!(is_zero(&vec![0; len]));
        for at in 0..len {
            let mut data = vec![0; len];
            data[at] = 0x80;
            assert!(!is_zero(&data), "byte {at} of {len}");
        }
    }
}
