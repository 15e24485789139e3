//! The layers: a module uses only those that its row grants.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers, lowest first, and the layers each may use.
const LAYERS: [(&str, &[&str]); 15] = [
    ("base", &[]),
    ("codec", &["base"]),
    ("format", &["base", "codec"]),
    ("localfs", &["base"]),
    ("checkpoint", &["base", "codec", "localfs"]),
    ("taskdb", &["base", "localfs"]),
    ("volume", &["base", "codec", "format", "localfs"]),
    ("object", &["base", "localfs"]),
    ("image", &["base", "codec", "localfs", "volume"]),
    ("engine", &["base", "codec", "format", "volume", "object", "image"]),
    ("aws", &["base", "codec", "format", "localfs", "volume", "object", "image"]),
    (
        "ops",
        &[
            "base",
            "codec",
            "format",
            "localfs",
            "checkpoint",
            "taskdb",
            "volume",
            "object",
            "image",
            "engine",
            "aws",
        ],
    ),
    (
        "facade",
        &["base", "checkpoint", "engine", "image", "localfs", "object", "ops", "aws", "volume"],
    ),
    (
        "server",
        &[
            "base",
            "codec",
            "localfs",
            "checkpoint",
            "taskdb",
            "image",
            "object",
            "engine",
            "ops",
            "aws",
        ],
    ),
    (
        "cli",
        &[
            "base",
            "codec",
            "format",
            "localfs",
            "checkpoint",
            "taskdb",
            "volume",
            "image",
            "object",
            "engine",
            "ops",
            "aws",
            "server",
        ],
    ),
];

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn files() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let read = |path: PathBuf| {
        let layer = path
            .strip_prefix(&root)
            .expect("below src")
            .iter()
            .next()
            .expect("a name")
            .display()
            .to_string();
        let text = fs::read_to_string(&path).expect("reads");
        (layer.trim_end_matches(".rs").to_owned(), path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The words after `crate::` in a file, `use crate::{a, b}` not being our style.
fn uses(text: &str) -> Vec<&str> {
    text.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
        })
        .collect()
}

#[test]
fn layers_use_only_lower_layers() {
    let granted: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    for (index, (layer, uses)) in LAYERS.iter().enumerate() {
        let lower: Vec<&str> = LAYERS[..index].iter().map(|(name, _)| *name).collect();
        assert!(
            uses.iter().all(|used| lower.contains(used)),
            "{layer} is granted a layer that is not below it"
        );
    }
    for (layer, path, text) in files() {
        let Some(granted) = granted.get(layer.as_str()) else {
            assert!(layer == "lib" || layer == "main", "{layer} has no row");
            continue;
        };
        for used in uses(&text) {
            assert!(
                used == layer || granted.contains(&used),
                "{}: {layer} must not use {used}",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_command_line_knows_its_libraries() {
    for (layer, path, text) in files() {
        for library in ["clap", "indicatif", "ctrlc"] {
            let named = text.contains(&format!("{library}::"));
            assert!(!named || layer == "cli", "{}: {library} belongs to cli", path.display());
        }
    }
}

#[test]
fn text_for_people_has_one_writer() {
    for (_, path, text) in files() {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let text: String = text.lines().filter(code).collect();
        let is_writer = path.ends_with("src/cli/output/safe_text.rs");
        let asks = text.matches("io::stderr().is_terminal()").count();
        assert!(
            is_writer || text.matches("io::stderr()").count() == asks,
            "{}: text goes to stderr as SafeText",
            path.display()
        );
        for printing in ["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!("] {
            assert!(!text.contains(printing), "{}: {printing}", path.display());
        }
    }
}

#[test]
fn only_one_layer_knows_the_sdk() {
    for (layer, path, text) in files() {
        for library in [
            "aws_sdk_",
            "aws_config::",
            "aws_credential_types::",
            "aws_runtime::",
            "aws_smithy_",
            "aws_types::",
            "tokio::",
            "crc_fast::",
        ] {
            let here = layer == "aws" || (library == "tokio::" && layer == "server");
            assert!(
                !text.contains(library) || here,
                "{}: {library} belongs to aws",
                path.display()
            );
        }
    }
}

/// Calls that open a path, and may wait for another process if it is a named pipe.
const OPENS: [&str; 8] = [
    "File::open(",
    "File::create(",
    "File::options(",
    "OpenOptions::new(",
    "fs::read(",
    "fs::read_to_string(",
    "fs::write(",
    "fs::copy(",
];

/// Files that make such calls, and the reason for which none of their paths waits.
const OPENERS: [(&str, &str); 7] = [
    ("localfs/look.rs", "it looks before it opens"),
    ("localfs/atomic_file.rs", "partial files are made, or opened to read and write"),
    ("checkpoint/file.rs", "an open to read and write does not wait"),
    ("taskdb/owner.rs", "only new files are opened here"),
    ("taskdb/runs.rs", "only new files are opened here"),
    ("taskdb/schema.rs", "only a new file is opened here"),
    ("volume/writers.rs", "the files of /proc and /sys are no pipes"),
];

#[test]
fn paths_are_looked_at_before_they_are_opened() {
    let mut openers: Vec<&str> = OPENERS.iter().map(|(file, _)| *file).collect();
    for (_, path, text) in files() {
        if path.ends_with("tests.rs") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: String =
            code.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect();
        // `PartialFile::create` is another call.
        let is_called = |call: &&&str| {
            let mut before = code.match_indices(**call).map(|(at, _)| &code[..at]);
            before.any(|text| !text.ends_with(|char: char| char.is_alphanumeric()))
        };
        let opens: Vec<_> = OPENS.iter().filter(is_called).collect();
        let is_opener = openers.iter().position(|file| path.ends_with(file));
        assert!(
            opens.is_empty() || is_opener.is_some(),
            "{}: {opens:?} may wait: read_short and open_to_read do not",
            path.display()
        );
        if let Some(at) = is_opener.filter(|_| !opens.is_empty()) {
            openers.swap_remove(at);
        }
    }
    assert!(openers.is_empty(), "{openers:?} open nothing");
}

#[test]
fn databases_and_servers_have_one_module_each() {
    for (layer, path, text) in files() {
        // Clients are a matter of one file of `aws`.
        let is_client = path.ends_with("aws/http_client.rs");
        for (library, owner) in [
            ("rusqlite::", "taskdb"),
            ("hyper::", "server"),
            ("hyper_util::", "server"),
            ("tokio_rustls::", "server"),
        ] {
            assert!(
                !text.contains(library)
                    || layer == owner
                    || (is_client && library.starts_with("hyper")),
                "{}: {library} belongs to {owner}",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_code_stays_in_three_small_files() {
    let allowed = ["codec/sha256/ni.rs", "codec/zstd.rs", "localfs/fiemap.rs"];
    for (_, path, text) in files() {
        let code = text.lines().any(|line| {
            line.contains("unsafe {") || line.contains("unsafe impl") || line.contains("unsafe fn")
        });
        assert!(!code || allowed.iter().any(|file| path.ends_with(file)), "{}", path.display());
    }
}

#[test]
fn files_are_short_and_begin_with_a_description() {
    for (_, path, text) in files() {
        assert!(text.lines().count() <= 600, "{} has more than 600 lines", path.display());
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
    }
}

/// The most lines of the run of a command: it parses, plans, runs and prints.
const RUN_LINES: usize = 60;

#[test]
fn commands_are_short() {
    let mut runs = 0;
    for (_, path, text) in files() {
        if !path.iter().any(|part| part == "commands") {
            continue;
        }
        let mut length = None;
        for line in text.lines() {
            let begins = line.trim_start().starts_with("fn ") || line.contains(") fn ");
            if begins && !line.starts_with("        ") {
                (length, runs) = (Some(0), runs + 1);
            }
            length = length.map(|length| length + 1).filter(|_| !line.starts_with('}'));
            let lines = length.unwrap_or_default();
            assert!(lines <= RUN_LINES, "{}: a function of {lines} lines", path.display());
        }
    }
    assert!(runs > 13, "{runs} functions are counted");
}

/// The groups of the drawing in `docs/architecture.md`, highest first, and the rooms of each. The
/// cells of a line are separated by two spaces or more.
fn drawn_groups() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).expect("reads");
    let (_, section) = text.split_once("\n## The rooms\n").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let known: Vec<&str> = LAYERS.iter().map(|(room, _)| *room).collect();
    let mut groups: Vec<Vec<String>> = Vec::new();
    for line in section.lines().filter_map(|line| line.strip_prefix("    ")) {
        let Some((label, cells)) = line.split_at_checked(13) else { continue };
        if !label.trim().is_empty() {
            groups.push(Vec::new());
        }
        let rooms = cells.split("  ").map(str::trim).filter(|cell| known.contains(cell));
        if let Some(group) = groups.last_mut() {
            group.extend(rooms.map(ToOwned::to_owned));
        }
    }
    groups
}

#[test]
fn the_drawing_shows_every_room_in_its_group() {
    let groups = drawn_groups();
    let group_of = |room: &str| {
        let holds = |group: &Vec<String>| group.iter().any(|drawn| drawn == room);
        assert_eq!(
            groups.iter().filter(|group| holds(group)).count(),
            1,
            "{room} is in the drawing of docs/architecture.md once"
        );
        groups.iter().position(holds).expect("counted")
    };
    for (room, uses) in &LAYERS {
        for used in *uses {
            assert!(
                group_of(used) >= group_of(room),
                "{room} is drawn below {used}, which it uses"
            );
        }
    }
}

/// Files of ports; the others of their rooms may read and write JSON of their own.
const PORTS: [&str; 6] = [
    "src/object/mod.rs",
    "src/object/upload.rs",
    "src/image/mod.rs",
    "src/image/restore.rs",
    "src/volume/sink.rs",
    "src/volume/source.rs",
];

#[test]
fn ports_do_not_know_how_progress_is_written_down() {
    let mut ports = 0;
    for (_, path, text) in files() {
        if PORTS.iter().any(|port| path.ends_with(port)) {
            ports += 1;
            assert!(!text.contains("serde"), "{}: records belong to ops", path.display());
        }
    }
    assert_eq!(ports, PORTS.len(), "every port is read");
}

/// Texts by which code would decide from the message, the facts or the causes of an error.
const DECISIONS_BY_TEXT: [&str; 15] = [
    ".message().contains(",
    ".message().starts_with(",
    ".message().ends_with(",
    ".message() ==",
    ".message() !=",
    "says(",
    ".fact(",
    ".causes().iter().any(",
    ".causes().iter().find",
    ".context().iter().find",
    ".context().iter().any(",
    ".to_string().contains(",
    ".to_string().starts_with(",
    "said.contains(",
    "mentions(said",
];

/// The one function in which the words of AWS are the only source of a decision.
const READS_WORDS_OF_AWS: &str = "src/aws/error.rs";

#[test]
fn errors_decide_by_code_and_not_by_text() {
    for (_, path, text) in files() {
        if path.ends_with("tests.rs") {
            continue;
        }
        // Line breaks within a call do not hide it. Unit tests may look at texts.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code: String = code.lines().map(str::trim).collect();
        for decision in DECISIONS_BY_TEXT {
            if decision.contains("said") && path.ends_with(READS_WORDS_OF_AWS) {
                continue;
            }
            assert!(!code.contains(decision), "{}: decides by {decision}", path.display());
        }
    }
}

/// The names that `src/lib.rs` exports, without `internals`.
fn exported() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(path).expect("reads");
    let code = text.split("pub mod internals").next().unwrap_or_default();
    let names = |statement: &str| {
        let list = statement.split(';').next().unwrap_or_default();
        let list = list.rsplit("::").next().unwrap_or_default().trim_matches(['{', '}']);
        let words = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        words.map(|name| name.trim_end_matches('}').to_owned()).collect::<Vec<_>>()
    };
    code.split("\npub use ").skip(1).flat_map(names).collect()
}

#[test]
fn the_library_exports_few_names() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = fs::read_to_string(path).expect("reads");
    // Without `internals`, the last one, which is behind a feature and not part of the interface.
    let text = text.split("pub mod internals").next().unwrap_or_default();
    let modules = text.lines().filter(|line| line.starts_with("pub mod ")).count();
    assert!(modules <= 3, "{modules} public modules");
    let names = exported();
    let verbs = ["clean", "copy", "extract", "inspect", "open_store", "restore", "restore_to_ec2"];
    let more = ["retire", "store", "tasks", "verify", "verify_against"];
    for name in verbs.into_iter().chain(more).chain(["Archive", "Error", "Options", "Store"]) {
        assert!(names.iter().any(|exported| exported == name), "{name} is exported: {names:?}");
    }
    assert!(names.len() <= 45, "{} names: {names:?}", names.len());
}
