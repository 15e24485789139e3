//! The contract of every store: one suite over memory, a directory and S3.

use std::collections::BTreeMap;
use std::path::PathBuf;

use amistore::internals::base::ErrorKind;
use amistore::internals::localfs::{Durability, Overwrite};
use amistore::internals::object::{
    Attributes, Creation, DirectoryStore, MemoryStore, ObjectReader, ObjectStore,
};
use amistore_aws_double::s3::ObjectOptions;

use super::setup::{BUCKET, Bench, PART};
use crate::support::image::Random;
use crate::support::listing::names;

const PART_LEN: usize = PART as usize;

/// A store, and access to its objects past the store.
struct TestStore {
    name: &'static str,
    store: Box<dyn ObjectStore>,
    backend: Backend,
}

enum Backend {
    Memory(MemoryStore),
    Directory(tempfile::TempDir),
    S3(Box<Bench>),
}

impl TestStore {
    fn all() -> Vec<Self> {
        let memory = MemoryStore::default();
        let directory = tempfile::tempdir().expect("a directory");
        let bench = Bench::new();
        let in_directory = DirectoryStore::new(directory.path(), Durability::Cached);
        vec![
            Self {
                name: "memory",
                store: Box::new(memory.clone()),
                backend: Backend::Memory(memory),
            },
            Self {
                name: "directory",
                store: Box::new(in_directory),
                backend: Backend::Directory(directory),
            },
            Self {
                name: "S3",
                store: Box::new(bench.store()),
                backend: Backend::S3(Box::new(bench)),
            },
        ]
    }

    /// Puts an object without the store, like another process.
    fn put(&self, key: &str, bytes: &[u8]) {
        match &self.backend {
            Backend::Memory(store) => store.put(key, bytes.to_vec()),
            Backend::Directory(directory) => {
                // A new file that is renamed, as tools replace files.
                let fresh: PathBuf = directory.path().join("fresh");
                std::fs::write(&fresh, bytes).expect("writes");
                std::fs::rename(fresh, directory.path().join(key)).expect("renames");
            }
            Backend::S3(bench) => {
                bench.server.put_object(BUCKET, key, bytes.to_vec(), ObjectOptions::default());
            }
        }
    }

    /// All objects, partial files and open uploads.
    fn entries(&self) -> Vec<String> {
        match &self.backend {
            Backend::Memory(store) => {
                let mut found = Vec::new();
                let listed = store.list("", &mut |listed| {
                    found.push(listed.key);
                    Ok(())
                });
                listed.expect("lists");
                found
            }
            Backend::Directory(directory) => names(directory.path()),
            Backend::S3(bench) => {
                let uploads = bench
                    .server
                    .open_uploads(BUCKET)
                    .into_iter()
                    .map(|upload| format!("upload of {}", upload.key));
                uploads.chain(bench.server.keys(BUCKET)).collect()
            }
        }
    }

    fn write(
        &self,
        key: &str,
        creation: Creation,
        bytes: &[u8],
    ) -> amistore::internals::base::Result<()> {
        let mut writer = self.store.create(key, creation)?;
        // Pieces that do not fit into parts.
        bytes.chunks(10_007).try_for_each(|piece| writer.append(piece))?;
        writer.commit()
    }

    fn read(&self, key: &str) -> Vec<u8> {
        let reader = self.store.open(key).expect("opens");
        all_of(reader.as_ref())
    }

    fn listed(&self, prefix: &str) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let listed = self.store.list(prefix, &mut |listed| {
            assert!(
                listed.modified.ends_with('Z') && listed.modified.len() == 20,
                "{}",
                listed.modified
            );
            found.push((listed.key, listed.len));
            Ok(())
        });
        listed.expect("lists");
        found
    }
}

fn all_of(reader: &dyn ObjectReader) -> Vec<u8> {
    let mut bytes = vec![0; reader.len() as usize];
    reader.read_at(0, &mut bytes).expect("reads");
    bytes
}

fn overwriting() -> Creation {
    Creation { overwrite: Overwrite::Yes, ..Creation::default() }
}

#[test]
fn an_object_of_any_size_appears_on_commit() {
    for case in TestStore::all() {
        let sizes = [
            0,
            1,
            PART_LEN - 1,
            PART_LEN,
            PART_LEN + 1,
            3 * PART_LEN,
            9 * PART_LEN + 5,
            17 * PART_LEN,
        ];
        for (index, size) in sizes.into_iter().enumerate() {
            let key = format!("{index}.bin");
            let bytes = Random(size as u64).noise(size);
            let mut writer = case.store.create(&key, Creation::default()).expect("creates");
            for piece in bytes.chunks(10_007) {
                writer.append(piece).expect("appends");
                assert_eq!(
                    case.store.open(&key).err().expect("not there").kind(),
                    ErrorKind::NotFound,
                    "{} {size}",
                    case.name
                );
            }
            writer.append(&[]).expect("appends nothing");
            writer.commit().expect("commits");
            assert!(case.read(&key) == bytes, "{} {size}", case.name);
            assert_eq!(case.entries().len(), index + 1, "{} {:?}", case.name, case.entries());
        }
    }
}

#[test]
fn a_dropped_writer_leaves_no_object() {
    for case in TestStore::all() {
        for size in [0, 1, PART_LEN, 5 * PART_LEN + 1, 20 * PART_LEN] {
            let mut writer = case.store.create("a.bin", Creation::default()).expect("creates");
            writer.append(&vec![7; size]).expect("appends");
            drop(writer);
            assert_eq!(case.entries(), [""; 0], "{} {size}", case.name);
        }
        // The old object stays.
        case.put("a.bin", b"old");
        let mut writer = case.store.create("a.bin", overwriting()).expect("creates");
        writer.append(&vec![7; 3 * PART_LEN]).expect("appends");
        drop(writer);
        assert_eq!(
            (case.read("a.bin"), case.entries()),
            (b"old".to_vec(), vec!["a.bin".to_owned()]),
            "{}",
            case.name
        );
    }
}

#[test]
fn an_existing_object_is_an_error_at_create_and_commit() {
    for case in TestStore::all() {
        for size in [1, 4 * PART_LEN] {
            case.put("a.bin", b"theirs");
            let error = case.store.create("a.bin", Creation::default()).err().expect("exists");
            assert_eq!(error.kind(), ErrorKind::Exists, "{}", case.name);
            let key = format!("{size}.bin");
            let mut writer = case.store.create(&key, Creation::default()).expect("creates");
            writer.append(&vec![1; size]).expect("appends");
            case.put(&key, b"theirs");
            assert_eq!(
                writer.commit().expect_err("exists").kind(),
                ErrorKind::Exists,
                "{} {size}",
                case.name
            );
            assert_eq!(case.read(&key), b"theirs", "{}", case.name);
        }
        assert_eq!(case.entries().len(), 3, "{} {:?}", case.name, case.entries());
    }
}

#[test]
fn an_object_is_replaced_with_overwrite() {
    for case in TestStore::all() {
        for size in [0, 1, 4 * PART_LEN] {
            case.put("a.bin", b"theirs");
            case.write("a.bin", overwriting(), &vec![3; size]).expect("replaces");
            assert!(case.read("a.bin") == vec![3; size], "{} {size}", case.name);
            case.write("new.bin", overwriting(), b"x").expect("need not be there");
        }
        assert_eq!(case.entries(), ["a.bin", "new.bin"], "{}", case.name);
    }
}

#[test]
fn any_range_can_be_read_in_any_order_and_none_beyond_the_end() {
    // Larger than the first read of an object that is opened.
    let bytes = Random(3).noise(400_001);
    let len = bytes.len() as u64;
    for case in TestStore::all() {
        case.put("a.bin", &bytes);
        let reader = case.store.open("a.bin").expect("opens");
        assert_eq!((reader.len(), reader.is_empty()), (len, false));
        assert!(reader.name().contains("a.bin"));
        let mut random = Random(4);
        let mut ranges = vec![
            (0, 0),
            (0, 1),
            (len - 1, 1),
            (len, 0),
            (0, len),
            (len - 131_072, 131_072),
            (len - 131_073, 131_073),
        ];
        ranges.extend((0..40).map(|_| {
            let start = random.below(len);
            (start, random.below((len - start).min(70_000) + 1))
        }));
        for (round, (offset, length)) in ranges.iter().copied().enumerate() {
            // With a prefetch of this range, of another range, and without.
            match round % 3 {
                0 => reader.prefetch(offset, length),
                1 => reader.prefetch(offset, length / 2),
                _ => {}
            }
            for _ in 0..2 {
                let mut buffer = vec![0xEE; length as usize];
                reader.read_at(offset, &mut buffer).expect("reads");
                assert!(
                    buffer == bytes[offset as usize..(offset + length) as usize],
                    "{} {offset} {length}",
                    case.name
                );
            }
        }
        for (offset, length) in
            [(len, 1), (len - 1, 2), (0, len + 1), (u64::MAX, 1), (u64::MAX - 1, 4), (len + 5, 0)]
        {
            reader.prefetch(offset, length);
            let outcome = reader.read_at(offset, &mut vec![0; length as usize]);
            assert!(length == 0 || outcome.is_err(), "{} {offset} {length}", case.name);
        }
        // Prefetched, and never read.
        reader.prefetch(0, 100_000);
        drop(reader);
        assert_eq!(case.store.open("b.bin").err().expect("not there").kind(), ErrorKind::NotFound);
    }
}

#[test]
fn ranges_are_read_by_many_threads() {
    let bytes = Random(5).noise(300_000);
    for case in TestStore::all() {
        case.put("a.bin", &bytes);
        let reader = case.store.open("a.bin").expect("opens");
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (reader, bytes) = (reader.as_ref(), &bytes);
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for _ in 0..12 {
                        let start = random.below(250_000) as usize;
                        let mut buffer = vec![0; random.below(50_000) as usize];
                        reader.prefetch(start as u64, buffer.len() as u64);
                        reader.read_at(start as u64, &mut buffer).expect("reads");
                        assert!(buffer == bytes[start..start + buffer.len()]);
                    }
                });
            }
        });
    }
}

#[test]
fn an_object_that_was_replaced_is_never_read_as_a_mixture() {
    for case in TestStore::all() {
        for len in [1000, 300_000] {
            let (old, new) = (vec![1; len], vec![2; len]);
            case.put("a.bin", &old);
            let reader = case.store.open("a.bin").expect("opens");
            let read = |start: usize, length: usize| {
                let mut buffer = vec![0; length];
                reader.read_at(start as u64, &mut buffer).map(|()| buffer)
            };
            assert!(read(0, 10).expect("reads") == old[..10]);
            reader.prefetch(0, 900);
            case.put("a.bin", &new);
            // Memory and files keep the old object for its open readers; S3 refuses. No store
            // returns the new bytes.
            for (start, length) in [(0, 900), (0, len), (len / 2, 100), (len - 10, 10)] {
                match read(start, length) {
                    Ok(bytes) => {
                        assert!(bytes == old[start..start + length], "{} {start}", case.name);
                    }
                    Err(error) => {
                        assert_eq!((case.name, error.kind()), ("S3", ErrorKind::Io), "{error:?}");
                        assert!(error.message().contains("replaced"), "{error:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn lists_are_sorted_and_have_archives_below_a_prefix_only() {
    for case in TestStore::all() {
        if let Backend::S3(bench) = &case.backend {
            bench.server.set_limits(amistore_aws_double::s3::Limits {
                page_size: 3,
                ..bench.server.limits()
            });
        }
        for key in [
            "b-2.bin",
            "a.bin",
            "b-1.bin",
            "b-3.txt",
            "b-10.bin",
            "c.bin",
            "bin",
            "b-ü.bin",
            "z.bin.partial",
        ] {
            case.put(key, &vec![0; key.len()]);
        }
        let keys =
            |prefix: &str| case.listed(prefix).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(
            keys(""),
            ["a.bin", "b-1.bin", "b-10.bin", "b-2.bin", "b-ü.bin", "c.bin"],
            "{}",
            case.name
        );
        assert_eq!(keys("b-"), ["b-1.bin", "b-10.bin", "b-2.bin", "b-ü.bin"], "{}", case.name);
        assert_eq!(case.listed("a"), [("a.bin".to_owned(), 5)], "{}", case.name);
        assert_eq!(keys("x"), [""; 0], "{}", case.name);
        // An error of the callback ends the list.
        let mut seen = 0;
        let ended = case.store.list("", &mut |_| {
            seen += 1;
            Err(amistore::internals::base::Error::interrupted())
        });
        assert_eq!(
            (ended.expect_err("ended").kind(), seen),
            (ErrorKind::Interrupted, 1),
            "{}",
            case.name
        );
    }
}

#[test]
fn stores_return_the_attributes_that_they_keep() {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let metadata =
        text(&[("ami-name", "Üñï 漢字 🦀"), ("plain", "plain"), ("odd", "a=?b"), ("empty", "")]);
    let tags = text(&[("k e y", "v&=ü"), ("none", "")]);
    for case in TestStore::all() {
        for size in [10, 3 * PART_LEN] {
            let key = format!("{size}.bin");
            let attributes = Attributes { metadata: metadata.clone(), tags: tags.clone() };
            case.write(&key, Creation { attributes, ..Creation::default() }, &vec![0; size])
                .expect("writes");
            let found = case.store.open(&key).expect("opens").attributes().metadata;
            let expected = if matches!(case.backend, Backend::Directory(_)) {
                BTreeMap::new()
            } else {
                metadata.clone()
            };
            assert_eq!(found, expected, "{} {size}", case.name);
            let mut listed = Vec::new();
            let outcome = case.store.list(&key, &mut |found| {
                listed.push(found.metadata);
                Ok(())
            });
            outcome.expect("lists");
            assert_eq!(listed, [expected], "{} {size}", case.name);
            if let Backend::S3(bench) = &case.backend {
                assert_eq!(bench.store().tags(&key).expect("tags"), tags);
                let object = bench.server.object(BUCKET, &key).expect("an object");
                assert_eq!(object.tags, tags);
                assert_eq!(object.content_type.as_deref(), Some("application/octet-stream"));
            }
        }
    }
}
