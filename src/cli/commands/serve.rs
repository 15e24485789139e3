//! `amistore serve`.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::options::{
    AccessArgs, EbsArgs, ObjectArgs, Settings, SidesArgs, StateArgs, command_line,
};
use super::super::output::Console;
use super::super::remote::Remote;
use crate::base::{Clock, Observer, Result};
use crate::server::{
    HttpServer, HttpSettings, TaskLimits, TaskService, TaskServiceSettings, Upstream,
    check_exposure, check_upstream,
};

/// Answer EC2's store and restore actions, so that existing scripts work unchanged
#[derive(Debug, Args)]
#[command(
    before_help = "\
Example:
  amistore serve --forward &
  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:8673
  aws ec2 create-store-image-task --image-id ami-0123456789abcdef0 --bucket my-bucket

  amistore serve --listen 0.0.0.0:8673 --access-keys keys --tls-cert cert.pem --tls-key key.pem",
    after_help = "\
EC2 and EBS are reached with --source-*, buckets with --target-*, in both directions of a \
transfer; options without a side are for both."
)]
pub(in super::super) struct ServeArgs {
    /// The address to listen on; port 0 takes a free port. Addresses that other machines reach need
    /// --access-keys and TLS
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8673",
        env = "AMISTORE_LISTEN",
        hide_env_values = true
    )]
    listen: SocketAddr,
    /// Let EC2 answer all other actions, requested with the credentials of this program
    #[arg(long)]
    forward: bool,
    /// Tasks in progress at one moment; others wait
    #[arg(
        long,
        value_name = "N",
        default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    max_tasks: u32,
    /// Tasks that wait at one moment; more are refused
    #[arg(long, value_name = "N", default_value = "100")]
    max_queued: u32,
    /// The account of the credentials for EC2; tasks of another account are left alone [default:
    /// STS is asked]
    #[arg(long, value_name = "ID", value_parser = account_id)]
    account_id: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// Limit of volumes of an image that are read and sent in parallel [default: as for store]
    #[arg(long, value_name = "N")]
    volumes_at_once: Option<usize>,
    #[command(flatten)]
    ebs: EbsArgs,
    #[command(flatten)]
    clients: AccessArgs,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    sides: SidesArgs,
}

fn account_id(text: &str) -> Result<String, String> {
    let is_one = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_one { Ok(text.to_owned()) } else { Err("an account has 12 digits".to_owned()) }
}

pub(super) fn run(args: &ServeArgs, settings: &Settings, console: &Console) -> Result<()> {
    // Keys, TLS and address are checked before a task is claimed.
    let http = HttpSettings { listen: args.listen, ..args.clients.http_settings()? };
    check_exposure(&http)?;
    let observer = console.observer();
    let ec2 = Remote::new(settings, &observer).control(&args.sides.source()?)?;
    if let Some(url) = ec2.endpoint().url() {
        check_upstream(url, args.listen)?;
    }
    let region = ec2.region();
    let upstream = args.forward.then(|| Arc::new(ec2) as Arc<dyn Upstream>);
    let service = TaskService::start(args.task_settings(settings, observer)?)?;
    let listened = listen(HttpSettings { region, upstream, ..http }, &service, settings, console);
    // Also after an error: tasks in progress stay recorded, and the next server continues them.
    service.stop();
    listened
}

impl ServeArgs {
    /// The settings of the task service: EC2 and EBS have those of the source, buckets those of the
    /// target.
    fn task_settings(
        &self,
        settings: &Settings,
        observer: Arc<dyn Observer>,
    ) -> Result<TaskServiceSettings> {
        self.object.refuse_tags()?;
        let (compute, archive) = (self.sides.source()?, self.sides.target()?);
        Ok(TaskServiceSettings {
            state: self.state.directory()?,
            resources: settings.resources,
            compute: compute.access,
            compute_requests: compute.settings,
            account_id: self.account_id.clone(),
            account_rate: self.ebs.account_rate()?,
            archive: archive.access,
            archive_requests: archive.settings,
            objects: self.object.options(self.volumes_at_once)?,
            allow_public_bucket: self.object.allow_public_bucket,
            limits: TaskLimits {
                max_tasks: self.max_tasks as usize,
                max_queued: self.max_queued.into(),
                ..TaskLimits::default()
            },
            command: command_line(),
            cancel: settings.cancel.clone(),
            observer,
            clock: Clock::default(),
        })
    }
}

/// Answers requests until the process is asked to stop.
fn listen(
    http: HttpSettings,
    service: &Arc<TaskService>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let server = HttpServer::start(http, service.clone())?;
    let (url, address, pid) = (server.url(), server.address(), std::process::id());
    let (ip, port) = (address.ip().to_string(), address.port());
    console.line(
        || format!("listening on {url}"),
        || json!({"Url": url, "Address": ip, "Port": port, "Pid": pid}),
    )?;
    settings.cancel.wait();
    server.stop();
    Ok(())
}
