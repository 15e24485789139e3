//! Runs the program in a directory of its own, and checks its output and files.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use amistore::internals::codec::sha256;
use amistore::internals::engine::Archive;
use amistore::internals::format::{Footer, GroupIndex, MetaRole, RootRecord};
use amistore::internals::object::MemoryReader;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::schema::Schema;
pub use super::wait::wait_until;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_amistore");
/// Bytes of a block.
pub const BLOCK: u64 = 512 << 10;

/// The image of [`Sandbox::sample_image`].
pub const IMAGE: &str = "ami-0123456789abcdef0";
/// The snapshot behind `/dev/xvda`.
pub const ROOT: &str = "snap-0aaaaaaaaaaaaaaaa";
/// The snapshot behind `/dev/sdb`.
pub const DATA: &str = "snap-0bbbbbbbbbbbbbbbb";

/// Time limit of a wait.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A working directory of the program for one test, and another one for its state.
pub struct Sandbox(TempDir, TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self(
            TempDir::new().expect("a temporary directory"),
            TempDir::new().expect("a state directory"),
        )
    }

    /// A sandbox that holds the sample image as directory `image`.
    pub fn with_image() -> Self {
        let sandbox = Self::new();
        sandbox.sample_image("image");
        sandbox
    }

    /// A sandbox that holds the sample image's archive as `a.bin`.
    pub fn with_archive() -> Self {
        Self::new().and("a.bin", sample_archive())
    }

    /// A sandbox that holds, besides, the file `name`.
    pub fn and(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.write(name, bytes);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("a file to be written");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("a file to be read")
    }

    pub fn make_directory(&self, name: &str) {
        fs::create_dir(self.path(name)).expect("a directory to be made");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("a file to be removed");
    }

    /// A sparse disk of `size` bytes that holds `pieces` at their blocks.
    pub fn disk(&self, name: &str, size: u64, pieces: &[(u64, Vec<u8>)]) {
        let file = File::create(self.path(name)).expect("a disk to be made");
        file.set_len(size).expect("its size to be set");
        for (block, data) in pieces {
            file.write_all_at(data, block * BLOCK).expect("data to be written");
        }
    }

    /// An image directory with two volumes and an ephemeral device: 1 GiB each, 4 blocks of the
    /// first and 3 of the second written.
    pub fn sample_image(&self, name: &str) {
        self.make_directory(name);
        self.write(&format!("{name}/image.json"), sample_json().to_string());
        let root =
            [(0, text(1, 1)), (9, text(2, 1)), (20, vec![0; BLOCK as usize]), (2047, text(3, 1))];
        self.disk(&format!("{name}/{ROOT}.raw"), 1 << 30, &root);
        self.disk(&format!("{name}/{DATA}.raw"), 1 << 30, &[(0, noise(4, 2)), (100, noise(5, 1))]);
    }

    /// Everything in the sandbox besides its initial files: sorted paths, directories with a final
    /// slash, dot files included.
    pub fn left(&self, set_up: &[&str]) -> Vec<String> {
        fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).expect("a directory to be listed") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(root).expect("a path within").display().to_string();
                if path.is_dir() {
                    found.push(format!("{name}/"));
                    walk(root, &path, found);
                } else {
                    found.push(name);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.retain(|path| {
            !set_up.iter().any(|known| path == known || path.starts_with(&format!("{known}/")))
        });
        found.sort();
        found
    }

    /// The program with arguments, in a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cleaned(PROGRAM);
        command.args(args);
        command
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(args))
    }

    /// Runs the program with `input` on stdin.
    pub fn run_with_input(&self, args: &[&str], input: &[u8]) -> Outcome {
        let file = tempfile::tempfile().expect("a file for stdin");
        file.write_all_at(input, 0).expect("it to be written");
        Outcome::of(self.command(args).stdin(file))
    }

    /// Runs a shell script that finds the program as `$AMISTORE`.
    pub fn shell(&self, script: &str) -> Outcome {
        Outcome::of(self.cleaned("sh").args(["-c", script]).env("AMISTORE", PROGRAM))
    }

    /// Starts the program; it is killed when the test ends.
    pub fn start(&self, command: &mut Command) -> Running {
        Running(Some(command.spawn().expect("the program to start")))
    }

    fn cleaned(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        remove_settings(&mut command);
        // Not the task database and settings of the caller.
        command.env("AMISTORE_STATE", self.1.path());
        command.env_remove("COLUMNS").env_remove("NO_COLOR").current_dir(self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Removes the variables by which the caller of the tests sets up the program, AWS and proxies.
pub fn remove_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy().to_ascii_uppercase();
        let is_setting = name.starts_with("AWS_") || name.ends_with("_PROXY");
        if is_setting || name.starts_with("AMISTORE_") {
            command.env_remove(&variable);
        }
    }
    // No configuration file is below it.
    command.env("XDG_CONFIG_HOME", "/dev/null");
}

/// Exit code and output of a run of the program.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program to run"))
    }

    /// Asserts success.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// Asserts this exit code, no result on stdout, and one error with these words.
    #[track_caller]
    pub fn failed(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        assert!(self.stdout.is_empty(), "a result was printed: {}", self.text());
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "not one error: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.says(says)
    }

    /// Asserts that stderr has these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in: {}", self.stderr);
        }
        self
    }

    /// stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stdout as one JSON value, which meets the schema of results.
    #[track_caller]
    pub fn json(&self) -> Value {
        let result = serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.text(), self.stderr));
        Schema::of_results().assert_met(&result);
        result
    }

    /// stderr as one JSON object, an error with all its members.
    #[track_caller]
    pub fn json_error(&self) -> Value {
        let error: Value = serde_json::from_str(&self.stderr)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stderr));
        Schema::of_errors().assert_met(&error);
        assert_eq!(error["exit_code"], self.code);
        error
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output
            .status
            .code()
            .or_else(|| output.status.signal().map(|signal| -signal))
            .expect("a status");
        Self {
            code,
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("messages in UTF-8"),
        }
    }
}

/// A running program.
pub struct Running(Option<Child>);

impl Running {
    pub fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("a program that runs")
    }

    /// Sends a signal by its name.
    pub fn signal(&mut self, name: &str) {
        let pid = self.child().id().to_string();
        let sent = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status()
            .expect("a shell");
        assert!(sent.success());
    }

    /// Waits for it to end. Its stdin stays open meanwhile.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let mut child = self.0.take().expect("a program that runs");
        let stdin = child.stdin.take();
        let started = Instant::now();
        let status = loop {
            match child.try_wait().expect("a status") {
                Some(status) => break status,
                None if started.elapsed() > TIME_LIMIT => {
                    let _ = child.kill();
                    panic!("the program does not end");
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        drop(stdin);
        // What it wrote waits in the pipes, which hold more than any message.
        let mut output = child.wait_with_output().expect("its output");
        output.status = status;
        output.into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes to a program's stdin, and leaves it open.
pub fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.as_mut().expect("a pipe to it").write_all(bytes).expect("the program to read");
}

/// The metadata of the sample image.
pub fn sample_json() -> Value {
    json!({
        "Image": {
            "ImageId": IMAGE,
            "Name": "sample",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": ROOT}},
                {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": DATA}},
                {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
            ],
        },
        "Snapshots": [{"SnapshotId": ROOT, "VolumeSize": 1}, {"SnapshotId": DATA, "VolumeSize": 1}],
    })
}

/// The archive of the sample image.
pub fn sample_archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let sandbox = Sandbox::with_image();
        sandbox.run(&["store", "image", "a.bin"]).succeeded();
        sandbox.read("a.bin")
    })
}

/// Blocks that cannot be compressed.
pub fn noise(seed: u64, blocks: u64) -> Vec<u8> {
    bytes(numbers(seed, blocks))
}

/// Blocks that can be compressed, with some work.
pub fn text(seed: u64, blocks: u64) -> Vec<u8> {
    bytes(
        numbers(seed, blocks).map(|number| number & 0x0707_0707_0707_0707 | 0x6060_6060_6060_6060),
    )
}

fn bytes(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    bytes
}

fn numbers(seed: u64, blocks: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
    .take((blocks * BLOCK / 8) as usize)
}

/// Positions of the pieces of an archive.
pub struct Anatomy {
    pub root: RootRecord,
    pub footer: Footer,
    groups: Vec<GroupIndex>,
}

impl Anatomy {
    pub fn of(bytes: &[u8]) -> Self {
        let reader = MemoryReader::new("archive", bytes.to_vec());
        let archive = Archive::open(std::sync::Arc::new(reader)).expect("an archive");
        let groups = archive
            .root()
            .groups
            .iter()
            .map(|entry| archive.group_index(entry).expect("an index"))
            .collect();
        Self { root: archive.root().clone(), footer: archive.footer().clone(), groups }
    }

    /// Offset and length of the C record and of the data frame of a cell, counted within a group
    /// of the table.
    pub fn cell(&self, group: usize, cell: usize) -> [(usize, usize); 2] {
        let cells = &self.groups[group].cells;
        let before: u64 = cells[..cell].iter().map(|cell| u64::from(cell.cell_len)).sum();
        let record = (self.root.groups[group].offset + before) as usize;
        let record_len = cells[cell].record_len() as usize;
        [(record, record_len), (record + record_len, cells[cell].frame_len() as usize)]
    }

    /// Offset and length of an S record.
    pub fn index(&self, group: usize) -> (usize, usize) {
        let entry = &self.root.groups[group];
        (entry.index_offset() as usize, entry.index_len as usize)
    }

    /// Offset and length of the first meta frame of a role.
    pub fn meta(&self, role: MetaRole) -> (usize, usize) {
        let frame = self
            .root
            .manifest
            .meta
            .iter()
            .find(|frame| frame.role == role)
            .expect("a frame of this role");
        (frame.offset as usize, frame.len as usize)
    }
}

/// An archive with a changed manifest and a footer that matches it. The member `writer` is removed,
/// which makes room for the change.
pub fn resealed(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let footer = Anatomy::of(bytes).footer;
    let (start, end) = (footer.root_offset as usize, footer.offset as usize);
    let mut root = bytes[start..end].to_vec();
    let len = u32::from_le_bytes(*root[16..].first_chunk().expect("a length")) as usize;
    let mut manifest: Value = serde_json::from_slice(&root[32..32 + len]).expect("a manifest");
    manifest["writer"] = json!("");
    change(&mut manifest);
    let mut manifest = manifest.to_string();
    manifest.push_str(&" ".repeat(len.saturating_sub(manifest.len())));
    assert_eq!(manifest.len(), len, "the manifest has to keep its length");
    root[32..32 + len].copy_from_slice(manifest.as_bytes());
    let sealed = Footer { root: sha256::digest(&root), ..footer }.encode();
    [&bytes[..start], &root, &sealed, &bytes[end + sealed.len()..]].concat()
}
