//! Arguments, as clap parses them. It does not check more than their form.

#![allow(rustdoc::invalid_html_tags, reason = "clap prints these texts to terminals")]

mod aws;
mod ec2;
mod serve;

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::base::{TaskKind, TaskState};

pub(super) use aws::{
    AddressingForm, AwsArgs, LinkArgs, ObjectArgs, ResumeArgs, SidesArgs, ThawArgs, TierForm,
};
pub(super) use ec2::{EbsArgs, Ec2Args, EditArgs, RetireArgs};
pub(super) use serve::{DoorArgs, ServeArgs};

impl ValueEnum for TaskState {
    fn value_variants<'a>() -> &'a [Self] {
        // EC2 names a queued task `InProgress` as well.
        &[Self::InProgress, Self::Completed, Self::Failed]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for TaskKind {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// Form of results and errors
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "AMISTORE_OUTPUT",
        default_value = "text",
        hide_env_values = true
    )]
    pub(super) output: OutputForm,
    /// Form of progress on stderr; auto: a bar on a terminal, otherwise a line every 10 s
    #[arg(
        long,
        global = true,
        value_name = "FORM",
        env = "AMISTORE_PROGRESS",
        default_value = "auto",
        hide_env_values = true
    )]
    pub(super) progress: ProgressForm,
    /// Only results and errors: no progress, no warnings
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    /// Say what is decided: threads, memory, places
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub(super) verbose: bool,
    /// No colours (also by the variable NO_COLOR)
    #[arg(long, global = true)]
    pub(super) no_color: bool,
    /// Memory to use at most; bytes, or with KiB, MiB, GiB
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        env = "AMISTORE_MEMORY",
        default_value = "256MiB",
        hide_env_values = true
    )]
    pub(super) memory: String,
    /// Worker threads [default: one for each CPU]
    #[arg(long, global = true, value_name = "N", env = "AMISTORE_THREADS", hide_env_values = true)]
    pub(super) threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputForm {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressForm {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// Pack an image into an archive
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore store image-dir/ archives/\n  amistore store --disk /dev/xvda=root.raw --disk /dev/sdb=data.raw --name \"web 2026-11\" archives/\n  amistore store image-dir/ s3://bucket/prefix/ --storage-class STANDARD_IA\n  amistore store ami-0123456789abcdef0 s3://bucket/ --source-profile com --target-profile archive",
    override_usage = "amistore store [OPTIONS] <SOURCE> <ARCHIVE>\n       amistore store [OPTIONS] --disk <DEVICE=FILE>... --name <NAME> <ARCHIVE>"
)]
pub(super) struct StoreArgs {
    /// SOURCE: an image (ami-...) or snapshots (snap-..., more with commas) in EC2, or an image
    /// directory (image.json and <snapshot-id>.raw files); left out with --disk. ARCHIVE: a file to
    /// make or s3://BUCKET/KEY, a directory or s3://BUCKET/PREFIX/ (stands for <ami-id>.bin in it),
    /// or - for stdout
    #[arg(value_name = "SOURCE ARCHIVE", required = true, num_args = 1..=2)]
    pub(super) places: Vec<PathBuf>,
    /// Compression level, 1 (fast) to 19 (small)
    #[arg(
        long,
        short,
        default_value_t = 1,
        value_name = "LEVEL",
        env = "AMISTORE_LEVEL",
        hide_env_values = true,
        allow_negative_numbers = true
    )]
    pub(super) level: i32,
    /// Take blocks that read as zeros for never written; costs a second pass over the data
    #[arg(long)]
    pub(super) sparse: bool,
    /// Volumes that are read and sent to a bucket side by side, at most [default: as many as
    /// --memory has room for; 1 for files and pipes, for directory buckets, for stores other than
    /// S3, which may not take part numbers with gaps, and with a --checksum-algorithm other than
    /// MD5]
    #[arg(long, value_name = "N")]
    pub(super) volumes_at_once: Option<usize>,
    #[command(flatten)]
    pub(super) write: WriteArgs,
    #[command(flatten)]
    pub(super) image: ImageArgs,
    #[command(flatten)]
    pub(super) object: ObjectArgs,
    #[command(flatten)]
    pub(super) resume: ResumeArgs,
    #[command(flatten)]
    pub(super) ec2: Ec2Args,
    #[command(flatten)]
    pub(super) sides: SidesArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Image from plain disks")]
pub(super) struct ImageArgs {
    /// A raw disk image or block device, and the device name it gets; the first is the root device
    #[arg(long, value_name = "DEVICE=FILE")]
    pub(super) disk: Vec<String>,
    /// AMI name, 3 to 128 characters
    #[arg(long, requires = "disk")]
    pub(super) name: Option<String>,
    /// AMI description
    #[arg(long, requires = "disk")]
    pub(super) description: Option<String>,
    /// AMI id [default: derived from what is given here and the disks' sizes]
    #[arg(long, value_name = "ID", requires = "disk")]
    pub(super) image_id: Option<String>,
    /// Processor architecture
    #[arg(long, value_name = "ARCH", default_value = "x86_64", requires = "disk", value_parser = ["x86_64", "arm64", "i386", "x86_64_mac", "arm64_mac"])]
    pub(super) architecture: String,
    /// Boot mode [default: that of the instance type]
    #[arg(long, value_name = "MODE", requires = "disk", value_parser = ["legacy-bios", "uefi", "uefi-preferred"])]
    pub(super) boot_mode: Option<String>,
    /// Tag of the image; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "disk")]
    pub(super) tag: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct WriteArgs {
    /// Replace what is there
    #[arg(long, short)]
    pub(super) force: bool,
    /// Print what would be done, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Report success before the data is on disk: faster, not safe against power failure
    #[arg(long)]
    pub(super) no_sync: bool,
}

/// Restore an archive to EC2, as a new image, or to an image directory
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore restore ami-0123456789abcdef0.bin restored/\n  ssh host cat ami.bin | amistore restore - restored/\n  amistore restore s3://bucket/ami-0123456789abcdef0.bin restored/\n  amistore restore s3://bucket/ami-0123456789abcdef0.bin ec2 --source-profile com --target-profile gov --encrypted"
)]
pub(super) struct RestoreArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    /// ec2 (a new image), or a directory, made if it is not there: gets image.json and sparse
    /// <snapshot-id>.raw files
    #[arg(value_name = "TARGET")]
    pub(super) target: PathBuf,
    #[command(flatten)]
    pub(super) write: WriteArgs,
    #[command(flatten)]
    pub(super) resume: ResumeArgs,
    #[command(flatten)]
    pub(super) thaw: ThawArgs,
    #[command(flatten)]
    pub(super) edits: EditArgs,
    #[command(flatten)]
    pub(super) ec2: Ec2Args,
    #[command(flatten)]
    pub(super) sides: SidesArgs,
}

/// Check an archive without writing anything
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore verify ami-0123456789abcdef0.bin\n  amistore verify --sample 5% ami-0123456789abcdef0.bin\n  amistore verify --against image-dir/ ami-0123456789abcdef0.bin"
)]
pub(super) struct VerifyArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    /// Check a random part of the data (index and metadata always whole)
    #[arg(long, value_name = "N%")]
    pub(super) sample: Option<String>,
    /// Compare with this image directory, too
    #[arg(long, value_name = "DIR", conflicts_with = "sample")]
    pub(super) against: Option<PathBuf>,
    #[command(flatten)]
    pub(super) thaw: ThawArgs,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// Take one volume, a range of it, or the metadata out of an archive
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore extract ami.bin --device /dev/sdb -o data.raw\n  amistore extract s3://bucket/ami.bin --device /dev/xvda --range 1MiB+64KiB -o - | xxd\n  amistore extract ami.bin --image-json",
    group = clap::ArgGroup::new("what").required(true).args(["device", "snapshot", "image_json"])
)]
pub(super) struct ExtractArgs {
    /// A file, or s3://BUCKET/KEY
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    /// The volume behind this device name
    #[arg(long, value_name = "NAME")]
    pub(super) device: Option<String>,
    /// The volume of this snapshot
    #[arg(long, value_name = "ID")]
    pub(super) snapshot: Option<String>,
    /// The metadata, image.json
    #[arg(long)]
    pub(super) image_json: bool,
    /// Only LENGTH bytes from OFFSET, each in bytes or with KiB, MiB, GiB: reads no more of the
    /// archive than they need
    #[arg(long, value_name = "OFFSET+LENGTH", conflicts_with = "image_json")]
    pub(super) range: Option<String>,
    /// Where it goes: a file, - for stdout or, with --force, a block device (not with --range);
    /// image.json goes to stdout without it
    #[arg(short = 'o', long = "to", value_name = "FILE", required_unless_present = "image_json")]
    pub(super) file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) write: WriteArgs,
    #[command(flatten)]
    pub(super) thaw: ThawArgs,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// Show what is in an archive, reading only head and index
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore inspect ami-0123456789abcdef0.bin\n  amistore inspect --output json ami.bin | jq .Volumes"
)]
pub(super) struct InspectArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin (which is read and checked to its end)
    #[arg(value_name = "ARCHIVE")]
    pub(super) archive: PathBuf,
    #[command(flatten)]
    pub(super) thaw: ThawArgs,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// Carry an archive from one place to another, without local disk, checking all of it on the way
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore copy s3://commercial/ami-x.bin s3://govcloud/ --source-profile com --target-profile gov\n  amistore copy ami-x.bin s3://bucket/prefix/\n  amistore copy s3://bucket/ami-x.bin archives/"
)]
pub(super) struct CopyArgs {
    /// A file, s3://BUCKET/KEY, or - for stdin
    #[arg(value_name = "FROM")]
    pub(super) from: PathBuf,
    /// A file or s3://BUCKET/KEY, a directory or s3://BUCKET/PREFIX/ (stands for the same name in
    /// it), or - for stdout
    #[arg(value_name = "TO")]
    pub(super) to: PathBuf,
    /// Within one store, read and check every byte here as well, instead of letting the service
    /// copy by itself
    #[arg(long)]
    pub(super) no_server_copy: bool,
    #[command(flatten)]
    pub(super) write: WriteArgs,
    #[command(flatten)]
    pub(super) object: ObjectArgs,
    #[command(flatten)]
    pub(super) resume: ResumeArgs,
    #[command(flatten)]
    pub(super) thaw: ThawArgs,
    #[command(flatten)]
    pub(super) sides: SidesArgs,
}

/// List the archives in a bucket or directory
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore ls s3://bucket/prefix/\n  amistore ls archives/ --output json | jq '.Archives[].AmiName'"
)]
pub(super) struct LsArgs {
    /// s3://BUCKET, s3://BUCKET/PREFIX, or a directory
    #[arg(value_name = "STORE")]
    pub(super) store: PathBuf,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// List stores, restores and copies of the last 31 days, those of servers too: what runs, what
/// ended, and what was interrupted and can be continued
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore tasks\n  amistore tasks --task-state Failed --output json | jq -r '.StoreImageTaskResults[].ResumeCommand'"
)]
pub(super) struct TasksArgs {
    /// Only tasks of this image; may be repeated
    #[arg(long, value_name = "AMI")]
    pub(super) image_id: Vec<String>,
    /// Only tasks in this state
    #[arg(long, value_name = "STATE")]
    pub(super) task_state: Option<TaskState>,
    /// Only tasks of this kind
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Option<TaskKind>,
    /// Where unfinished work is remembered [default: $XDG_STATE_HOME/amistore, else
    /// ~/.local/state/amistore]
    #[arg(long, value_name = "DIR", env = "AMISTORE_STATE", hide_env_values = true)]
    pub(super) state: Option<PathBuf>,
}

/// List what interrupted work left behind, and, asked to, remove it
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore clean                                        # what interrupted work here left behind\n  amistore clean --abort                                # give it up: abort uploads, remove partial volumes\n  amistore clean s3://bucket/prefix/ --others --older-than 7d --abort"
)]
pub(super) struct CleanArgs {
    /// Look for open uploads here as well: s3://BUCKET or s3://BUCKET/PREFIX
    #[arg(value_name = "STORE")]
    pub(super) store: Option<PathBuf>,
    /// Abort the uploads and remove the partial volumes that are listed
    #[arg(long)]
    pub(super) abort: bool,
    /// Also uploads of *.bin below STORE that are not remembered here, which may be somebody else's
    /// work
    #[arg(long, requires = "store")]
    pub(super) others: bool,
    /// Only what was begun longer ago: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "AGE")]
    pub(super) older_than: Option<String>,
    /// Where unfinished work is remembered [default: $XDG_STATE_HOME/amistore, else
    /// ~/.local/state/amistore]
    #[arg(long, value_name = "DIR", env = "AMISTORE_STATE", hide_env_values = true)]
    pub(super) state: Option<PathBuf>,
    #[command(flatten)]
    pub(super) aws: AwsArgs,
}

/// Print a completion script
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  amistore completions bash > /etc/bash_completion.d/amistore")]
pub(super) struct CompletionsArgs {
    /// The shell
    pub(super) shell: clap_complete::Shell,
}

/// Print the manual page, or write all pages to a directory
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore man | man -l -\n  amistore man --dir /usr/local/share/man/man1"
)]
pub(super) struct ManArgs {
    /// The command whose page is wanted [default: the program]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(super) verb: Option<String>,
    /// Write all pages there
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
