//! What the blocks of a snapshot hold: bytes, nothing but zeros, or bytes that are made when
//! somebody asks for them.
//!
//! Made blocks cost no memory and little time, however large a volume is: their bytes come from a
//! small pool, and only the last few are of the block's own. So no two blocks are equal, and still
//! a checksum needs only those few bytes to be hashed.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};

/// Bytes of a block.
pub const BLOCK: usize = 512 << 10;

/// Bytes at the end of a made block that no other block has.
const TAIL: usize = 64;
/// Different beginnings of made blocks.
const POOL: u64 = 32;
/// A piece of a made block is random or text.
const PIECE: usize = 4 << 10;

static ZEROS: LazyLock<(Bytes, [u8; 32])> = LazyLock::new(|| hashed(Bytes::from(vec![0; BLOCK])));
static POOLS: LazyLock<Mutex<BTreeMap<Pattern, Pool>>> = LazyLock::new(Mutex::default);

type Pool = Arc<Vec<(Bytes, Sha256)>>;

/// How blocks are made: the same seed makes the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    pub seed: u64,
    /// How much of a block is random, in percent. The rest is text that compresses well.
    pub random: u8,
}

/// What a block holds.
#[derive(Clone, Debug)]
pub enum Content {
    Zero,
    /// A whole block, and its SHA-256.
    Bytes(Bytes, [u8; 32]),
    Made(Pattern),
    /// A block whose bytes were not kept.
    Digest([u8; 32]),
}

impl Content {
    /// These bytes, and zeros up to the end of the block.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let mut bytes = bytes.into();
        assert!(bytes.len() <= BLOCK, "more than a block");
        bytes.resize(BLOCK, 0);
        Self::of(Bytes::from(bytes))
    }

    /// A whole block.
    pub fn of(bytes: Bytes) -> Self {
        if bytes == ZEROS.0 {
            return Self::Zero;
        }
        let (bytes, digest) = hashed(bytes);
        Self::Bytes(bytes, digest)
    }

    /// Blocks that do not compress.
    pub fn random(seed: u64) -> Self {
        Self::Made(Pattern { seed, random: 100 })
    }

    /// The bytes, in pieces, and their SHA-256.
    pub fn read(&self, index: u32) -> (Vec<Bytes>, [u8; 32]) {
        match self {
            Self::Zero => (vec![ZEROS.0.clone()], ZEROS.1),
            Self::Bytes(bytes, digest) => (vec![bytes.clone()], *digest),
            Self::Digest(digest) => (vec![ZEROS.0.clone()], *digest),
            Self::Made(pattern) => {
                let pool = pool(*pattern);
                let (bytes, hash) = &pool[(u64::from(index) % POOL) as usize];
                let tail = random(pattern.seed ^ (u64::from(index) << 20) ^ 0x5bd1, TAIL);
                let digest = hash.clone().chain_update(&tail).finalize();
                (vec![bytes.clone(), tail.into()], digest.into())
            }
        }
    }

    pub fn digest(&self, index: u32) -> [u8; 32] {
        match self {
            Self::Digest(digest) | Self::Bytes(_, digest) => *digest,
            _ => self.read(index).1,
        }
    }

    pub fn to_vec(&self, index: u32) -> Vec<u8> {
        self.read(index).0.concat()
    }
}

fn hashed(bytes: Bytes) -> (Bytes, [u8; 32]) {
    let digest = sha256(&bytes);
    (bytes, digest)
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The pool of a pattern. It is made when it is first used, and kept for all servers.
fn pool(pattern: Pattern) -> Pool {
    let mut pools = POOLS.lock().expect("no panic");
    let make = || {
        let blocks = (0..POOL).map(|number| {
            let bytes = begin(pattern, number);
            let hash = Sha256::new_with_prefix(&bytes);
            (Bytes::from(bytes), hash)
        });
        Arc::new(blocks.collect())
    };
    Arc::clone(pools.entry(pattern).or_insert_with(make))
}

/// All of a made block that is not its own.
fn begin(pattern: Pattern, number: u64) -> Vec<u8> {
    let mut bytes = random(pattern.seed.wrapping_mul(POOL).wrapping_add(number), BLOCK);
    let mut dice = Dice(pattern.seed ^ number);
    for piece in bytes.chunks_mut(PIECE) {
        if dice.next() % 100 >= u64::from(pattern.random) {
            let text = format!(
                "line {:08x} of a file that compresses as files do\n",
                dice.next() & 0xffff_ffff
            );
            piece.iter_mut().zip(text.bytes().cycle()).for_each(|(byte, letter)| *byte = letter);
        }
    }
    bytes.truncate(BLOCK - TAIL);
    bytes
}

/// Numbers that look random: splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len / 8).flat_map(|_| dice.next().to_le_bytes()).collect()
}

#[test]
fn made_blocks_differ_and_are_what_their_digests_say() {
    let content = Content::Made(Pattern { seed: 7, random: 50 });
    let blocks: Vec<Vec<u8>> = (0..40).map(|index| content.to_vec(index)).collect();
    for (index, block) in blocks.iter().enumerate() {
        assert_eq!(block.len(), BLOCK);
        assert_eq!(content.digest(index as u32), sha256(block));
        assert!(blocks[..index].iter().all(|other| other != block));
    }
    assert_eq!(Content::Made(Pattern { seed: 7, random: 50 }).to_vec(3), blocks[3]);
    assert_ne!(Content::random(7).to_vec(3), blocks[3]);
    assert_eq!(Content::Zero.digest(0), sha256(&[0; BLOCK]));
    assert_eq!(Content::bytes(b"x").to_vec(0)[..2], *b"x\0");
    assert!(matches!(Content::bytes([]), Content::Zero));
}
