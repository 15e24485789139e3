//! Every path against known vectors and against the `sha2` crate.

use super::*;

/// A path under test: the digests of all inputs.
type Path = fn(&[&[u8]], &mut [Digest]);

/// The public entry, the portable path, and the kernel where this CPU can run it.
fn paths() -> Vec<(&'static str, Path)> {
    let mut paths: Vec<(&'static str, Path)> =
        vec![("public", digest_many), ("portable", portable)];
    if Engine::detect().is_some() {
        paths.push(("kernel", |inputs, out| {
            if let Some(engine) = Engine::detect() {
                interleaved(engine, inputs, out);
            }
        }));
    }
    paths
}

/// Checks every path on one batch against `sha2`.
fn check(inputs: &[&[u8]]) {
    let expected: Vec<Digest> = inputs.iter().map(|i| Sha256::digest(i).into()).collect();
    for (name, path) in paths() {
        // Not zeros: a digest that was never written must show.
        let mut out = vec![[0xa5; 32]; inputs.len()];
        path(inputs, &mut out);
        let lengths: Vec<usize> = inputs.iter().map(|i| i.len()).collect();
        assert_eq!(out, expected, "{name} path, lengths {lengths:?}");
    }
}

/// A small deterministic generator (xorshift, never zero).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`; slightly uneven, which does not matter here.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 24) as u8).collect()
    }
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn known_vectors() {
    let zeros = vec![0; 512 << 10];
    let million = vec![b'a'; 1_000_000];
    let vectors: [(&[u8], &str); 5] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        // In base64: B4VNL+8pega6gWheZgwzLeNtXRjVRpJ9MNqtbX/aFUE=.
        (&zeros, "07854d2fef297a06ba81685e660c332de36d5d18d546927d30daad6d7fda1541"),
    ];
    let inputs = vectors.map(|(input, _)| input);
    for (name, path) in paths() {
        let mut out = [Digest::default(); 5];
        path(&inputs, &mut out);
        for (digest, (input, expected)) in out.iter().zip(vectors) {
            assert_eq!(hex(digest), expected, "{name} path, {} bytes", input.len());
        }
    }
    for (input, expected) in vectors {
        assert_eq!(hex(&digest(input)), expected);
    }
}

#[test]
fn every_short_length_alone_and_in_company() {
    let data = Random(1).bytes(300);
    let all: Vec<&[u8]> = (0..=data.len()).map(|len| &data[..len]).collect();
    for (len, input) in all.iter().enumerate() {
        check(&[input]);
        assert_eq!(digest(input), <Digest>::from(Sha256::digest(input)));
        // A window of lengths, so that chains end at neighbouring points.
        check(&all[len..all.len().min(len + 6)]);
    }
    check(&all);
}

#[test]
fn random_batches() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let pool = random.bytes(40_000);
    for _ in 0..4000 {
        let count = random.below(21);
        // Mostly short, sometimes long, and at any alignment.
        let longest = 1 << random.below(15);
        let inputs: Vec<&[u8]> = (0..count)
            .map(|_| {
                let limit = random.below(longest) + 1;
                let len = random.below(limit + 1);
                let start = random.below(pool.len() - len);
                &pool[start..start + len]
            })
            .collect();
        check(&inputs);
    }
}

#[test]
fn batches_around_the_size_of_the_stack_array() {
    let mut random = Random(7);
    let pool = random.bytes(1000);
    for count in [SMALL_BATCH - 1, SMALL_BATCH, SMALL_BATCH + 1, 200] {
        let inputs: Vec<&[u8]> = (0..count).map(|_| &pool[random.below(1000)..]).collect();
        check(&inputs);
    }
}

#[test]
fn equal_lengths() {
    let pool = Random(5).bytes(21 * 3000);
    for len in [0, 1, 55, 56, 64, 1000, 3000] {
        for count in 0..=21 {
            let inputs: Vec<&[u8]> = (0..count).map(|i| &pool[i * len..(i + 1) * len]).collect();
            check(&inputs);
        }
    }
}

#[test]
fn block_counts_agree_with_the_padding() {
    let Some(engine) = Engine::detect() else { return };
    for len in 0..300 {
        let chain = Chain::start(engine, 0, &[0; 300][..len], 0);
        assert_eq!(chain.left(), block_count(len), "{len} bytes");
    }
}

#[test]
fn zeros_at_the_start_of_messages() {
    let mut random = Random(13);
    let most = (ZERO_STEPS + 3) * ZERO_STEP;
    let mut zeros: Vec<usize> = (0..40).map(|_| random.below(most)).collect();
    for steps in [0, 1, 2, ZERO_STEPS - 1, ZERO_STEPS, ZERO_STEPS + 1] {
        zeros.extend([0, 1, 63, 64, ZERO_STEP - 1].map(|more| steps * ZERO_STEP + more));
    }
    let messages: Vec<Vec<u8>> = zeros
        .iter()
        .map(|zeros| {
            let data = random.below(3 * ZERO_STEP);
            [vec![0; *zeros], random.bytes(data)].concat()
        })
        .collect();
    for message in &messages {
        check(&[message]);
        assert_eq!(digest(message), <Digest>::from(Sha256::digest(message)));
    }
    let all: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    all.chunks(9).for_each(check);
    check(&all);
}

#[test]
fn blocks_of_equal_length_with_one_longer() {
    let mut random = Random(11);
    let blocks: Vec<Vec<u8>> =
        (0..9).map(|i| random.bytes(if i == 5 { 150_001 } else { 64 << 10 })).collect();
    let inputs: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
    check(&inputs);
}

#[test]
#[should_panic(expected = "one digest per input")]
fn lengths_that_differ() {
    digest_many(&[b"a", b"b"], &mut [Digest::default()]);
}
