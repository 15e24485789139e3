//! `amistore serve`.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::super::options::{
    AccessArgs, EbsArgs, MadeArgs, ObjectArgs, Settings, SidesArgs, StateArgs, command_line,
};
use super::super::output::Console;
use super::super::remote::Remote;
use crate::aws::check_region;
use crate::aws::ec2::Ec2Connection;
use crate::base::{Clock, Observer, Result};
use crate::server::{
    AccessKeys, HttpServer, HttpSettings, ServedSite, SiteSettings, TaskLimits, TaskService,
    TaskServiceSettings, Upstream, check_exposure, check_upstream,
};

/// Answer EC2's store and restore actions, so that existing scripts work unchanged
#[derive(Debug, Args)]
#[command(
    before_help = "\
Example:
  amistore serve --forward &
  export AWS_ENDPOINT_URL_EC2=http://127.0.0.1:8673
  aws ec2 create-store-image-task --image-id ami-0123456789abcdef0 --bucket my-bucket

  amistore serve --forward --serve-region us-east-1,eu-west-1

  amistore serve --listen 0.0.0.0:8673 --access-keys keys --tls-cert cert.pem --tls-key key.pem",
    after_help = "\
EC2 and EBS are reached with --source-*, buckets with --target-*, in both directions of a \
transfer; options without a side are for both. A profile in the file of --access-keys replaces \
--profile and --source-profile."
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
    /// The Regions of requests, the first one for requests without a signature; requests for others
    /// are refused [default: the Region of EC2 alone]
    #[arg(long, value_name = "REGION", value_delimiter = ',', value_parser = region)]
    serve_region: Vec<String>,
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
    made: MadeArgs,
    #[command(flatten)]
    clients: AccessArgs,
    #[command(flatten)]
    object: ObjectArgs,
    #[command(flatten)]
    sides: SidesArgs,
}

fn region(text: &str) -> Result<String, String> {
    check_region(text).map(|()| text.to_owned()).map_err(|error| error.message().to_owned())
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
    let (own, others) = args.sites(http.keys.as_ref(), &Remote::new(settings, &observer))?;
    let service = TaskService::start(args.task_settings(&own, &others, settings, observer)?)?;
    let upstream = |ec2: Ec2Connection| args.forward.then(|| Arc::new(ec2) as Arc<dyn Upstream>);
    let served = others.into_iter().zip(service.others()).map(|(site, (region, service))| {
        let Site { profile, is_default, ec2, .. } = site;
        ServedSite { profile, region, is_default, service, upstream: upstream(ec2) }
    });
    let others = served.collect();
    let (region, upstream) = (own.ec2.region(), upstream(own.ec2));
    let http = HttpSettings { region, upstream, others, ..http };
    let listened = listen(http, &service, settings, console);
    // Also after an error: tasks in progress stay recorded, and the next server continues them.
    service.stop();
    listened
}

/// A Region with a profile, as it is served.
struct Site {
    /// The profile that access keys name.
    profile: Option<String>,
    /// Whether keys that name no Region may use it.
    is_default: bool,
    sides: SidesArgs,
    ec2: Ec2Connection,
}

impl ServeArgs {
    /// The site of the server itself, and all others: further Regions, and those that access keys
    /// name, each with the profile of the key.
    fn sites(&self, keys: Option<&AccessKeys>, remote: &Remote) -> Result<(Site, Vec<Site>)> {
        let open = |profile: Option<&str>, region: Option<&str>, is_default: bool| {
            let sides = self.sides.at(profile, region);
            let ec2 = remote.control(&sides.source()?)?;
            if let Some(url) = ec2.endpoint().url() {
                check_upstream(url, self.listen)?;
            }
            Ok(Site { profile: profile.map(ToOwned::to_owned), is_default, sides, ec2 })
        };
        let own = open(None, self.serve_region.first().map(String::as_str), true)?;
        let mut others: Vec<Site> = Vec::new();
        let mut add = |site: Site| {
            let is_same = |known: &Site| {
                (&known.profile, known.ec2.region()) == (&site.profile, site.ec2.region())
            };
            match others.iter_mut().find(|known| is_same(known)) {
                Some(known) => known.is_default |= site.is_default,
                None if is_same(&own) => {}
                None => others.push(site),
            }
        };
        for region in self.serve_region.iter().skip(1) {
            add(open(None, Some(region), true)?);
        }
        for (profile, region) in keys.iter().flat_map(|keys| keys.sites()) {
            if region.is_some() {
                add(open(profile, region, false)?);
            } else if profile.is_some() && self.serve_region.is_empty() {
                add(open(profile, None, true)?);
            } else if profile.is_some() {
                for region in &self.serve_region {
                    add(open(profile, Some(region), true)?);
                }
            }
        }
        Ok((own, others))
    }

    /// The settings of the task service: EC2 and EBS have those of the source, buckets those of the
    /// target.
    fn task_settings(
        &self,
        own: &Site,
        others: &[Site],
        settings: &Settings,
        observer: Arc<dyn Observer>,
    ) -> Result<TaskServiceSettings> {
        self.object.refuse_tags()?;
        let (compute, archive) = (own.sides.source()?, own.sides.target()?);
        Ok(TaskServiceSettings {
            state: self.state.directory()?,
            resources: settings.resources,
            compute: compute.access,
            compute_requests: compute.settings,
            account_id: self.account_id.clone(),
            account_rate: self.ebs.account_rate()?,
            archive: archive.access,
            archive_requests: archive.settings,
            edits: self.made.edits(&own.ec2.region())?,
            others: others.iter().map(|site| self.site_settings(site)).collect::<Result<_>>()?,
            level: self.made.level()?,
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

    fn site_settings(&self, site: &Site) -> Result<SiteSettings> {
        Ok(SiteSettings {
            profile: site.profile.clone(),
            compute: site.sides.source()?.access,
            // Another profile may be of another account.
            account_id: self.account_id.clone().filter(|_| site.profile.is_none()),
            archive: site.sides.target()?.access,
            edits: self.made.edits(&site.ec2.region())?,
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
