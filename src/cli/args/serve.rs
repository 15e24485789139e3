//! Arguments of the endpoint.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{EbsArgs, ObjectArgs, SidesArgs};

/// Answer EC2's store and restore actions, so that existing scripts work unchanged
#[derive(Debug, Args)]
#[command(
    before_help = "Example:\n  amistore serve --forward &\n  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:8673\n  aws ec2 create-store-image-task --image-id ami-0123456789abcdef0 --bucket my-bucket\n\n  amistore serve --listen 0.0.0.0:8673 --access-keys keys --tls-cert cert.pem --tls-key key.pem",
    after_help = "EC2 and EBS are reached with --source-*, buckets with --target-*, whichever way the bytes go; what has no side is for both."
)]
pub(in super::super) struct ServeArgs {
    /// Where to listen; port 0 takes a free one. Others than this machine are let in only with
    /// --access-keys and TLS
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8673",
        env = "AMISTORE_LISTEN",
        hide_env_values = true
    )]
    pub(in super::super) listen: SocketAddr,
    /// Let EC2 answer all other actions, asked with the credentials of this program
    #[arg(long)]
    pub(in super::super) forward: bool,
    /// Tasks that are worked on at a time; others wait
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in super::super) max_tasks: u32,
    /// Tasks that wait at a time; more are refused
    #[arg(long, value_name = "N", default_value = "100")]
    pub(in super::super) max_queued: u32,
    /// The account of the credentials for EC2; tasks of another account are left alone [default:
    /// STS is asked]
    #[arg(long, value_name = "ID", value_parser = account_id)]
    pub(in super::super) account_id: Option<String>,
    /// Where tasks and unfinished work are remembered [default: $XDG_STATE_HOME/amistore, else
    /// ~/.local/state/amistore]
    #[arg(long, value_name = "DIR", env = "AMISTORE_STATE", hide_env_values = true)]
    pub(in super::super) state: Option<PathBuf>,
    /// Volumes of an image that are read and sent side by side, at most [default: as for store]
    #[arg(long, value_name = "N")]
    pub(in super::super) volumes_at_once: Option<usize>,
    #[command(flatten)]
    pub(in super::super) ebs: EbsArgs,
    #[command(flatten)]
    pub(in super::super) doors: DoorArgs,
    #[command(flatten)]
    pub(in super::super) object: ObjectArgs,
    #[command(flatten)]
    pub(in super::super) sides: SidesArgs,
}

fn account_id(text: &str) -> Result<String, String> {
    let is_one = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_one { Ok(text.to_owned()) } else { Err("an account has 12 digits".to_owned()) }
}

/// Who gets in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(in super::super) struct DoorArgs {
    /// Access keys whose signatures are required: a file in the form of ~/.aws/credentials that
    /// only its owner may read
    #[arg(long, value_name = "FILE")]
    pub(in super::super) access_keys: Option<PathBuf>,
    /// Certificate chain in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(in super::super) tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(in super::super) tls_key: Option<PathBuf>,
    /// Password of status page and metrics: a file that only its owner may read. Without it, both
    /// are for this machine alone
    #[arg(long, value_name = "FILE")]
    pub(in super::super) status_password_file: Option<PathBuf>,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value = "512", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(in super::super) max_connections: u32,
}
