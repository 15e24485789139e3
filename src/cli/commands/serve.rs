//! `amistore serve`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::json;

use super::super::args::{DoorArgs, ServeArgs};
use super::super::output::Console;
use super::super::remote::{Remote, Side};
use super::super::settings::{Settings, state_directory};
use crate::aws::s3::ObjectOptions;
use crate::base::{Error, Observer, Result};
use crate::server::{
    AccessKeys, HttpServer, HttpSettings, Limits, TaskLimits, TaskService, TaskServiceSettings,
    TlsFiles, Upstream, check_exposure, read_private,
};

pub(in super::super) fn run(args: ServeArgs, settings: &Settings, console: &Console) -> Result<()> {
    // What is wrong with the doors is said before anything is opened behind them.
    let http = HttpSettings { listen: args.listen, ..http_settings(&args.doors)? };
    check_exposure(&http)?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let ec2 = remote.control(&args.sides.access(Side::Source), &args.sides.source_link())?;
    let endpoint = ec2.endpoint();
    if endpoint.url().is_some_and(|url| leads_to(url, args.listen)) {
        let error = Error::usage(
            "the endpoint of EC2 is this server itself: start it without AWS_ENDPOINT_URL_EC2, which is for its clients",
        );
        return Err(error.at("endpoint", endpoint));
    }
    let region = ec2.region();
    let upstream = args.forward.then(|| Arc::new(ec2) as Arc<dyn Upstream>);
    let service = TaskService::start(task_settings(&args, settings, observer)?)?;
    let listened = listen(HttpSettings { region, upstream, ..http }, &service, settings, console);
    // Also when nobody could be let in: what was begun stays in progress, and the next server goes
    // on with it.
    service.stop();
    listened
}

/// Whether a URL is that of a server that listens there: a request that it forwards would come back
/// to it for ever.
fn leads_to(url: &str, listen: SocketAddr) -> bool {
    let authority =
        url.split("://").last().unwrap_or_default().split('/').next().unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen.ip());
    is_here && port.parse() == Ok(listen.port())
}

/// Who does the work: EC2 and EBS are the side of the source, buckets that of the target, whichever
/// way the bytes go.
fn task_settings(
    args: &ServeArgs,
    settings: &Settings,
    observer: Arc<dyn Observer>,
) -> Result<TaskServiceSettings> {
    if !args.object.s3_object_tag.is_empty() {
        return Err(Error::usage(
            "tags of objects come with each request: as S3ObjectTags, and not as --s3-object-tag",
        ));
    }
    Ok(TaskServiceSettings {
        state: state_directory(args.state.as_deref())?,
        resources: settings.resources(),
        compute: args.sides.access(Side::Source),
        compute_requests: args.sides.source_link().settings()?,
        account_id: args.account_id.clone(),
        account_rate: args.ebs.ebs_account_rate,
        archive: args.sides.access(Side::Target),
        archive_requests: args.sides.link.settings()?,
        objects: ObjectOptions {
            parallel_segments: args.volumes_at_once,
            ..args.object.options(0)?
        },
        allow_public_bucket: args.object.allow_public_bucket,
        limits: TaskLimits {
            max_tasks: args.max_tasks as usize,
            max_queued: args.max_queued.into(),
            ..TaskLimits::default()
        },
        command: super::super::remote::command_line(),
        cancel: settings.cancel.clone(),
        observer,
    })
}

fn http_settings(args: &DoorArgs) -> Result<HttpSettings> {
    let keys = args.access_keys.as_deref().map(AccessKeys::load).transpose()?;
    let password = args.status_password_file.as_deref().map(|path| {
        let text = read_private(path, "the password")?;
        let password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            Err(Error::usage("the password is empty").at("path", path.display()))
        } else {
            Ok(password)
        }
    });
    let tls = args
        .tls_cert
        .clone()
        .zip(args.tls_key.clone())
        .map(|(certificate, key)| TlsFiles { certificate, key });
    let limits = Limits { max_connections: args.max_connections as usize, ..Limits::default() };
    Ok(HttpSettings {
        tls,
        keys,
        status_password: password.transpose()?,
        limits,
        ..HttpSettings::default()
    })
}

/// Answers requests until the process is asked to stop.
fn listen(
    http: HttpSettings,
    service: &Arc<TaskService>,
    settings: &Settings,
    console: &Console,
) -> Result<()> {
    let server = HttpServer::start(http, service.clone())?;
    let (url, address) = (server.url(), server.address());
    console.line(
        || format!("listening on {url}"),
        || json!({"Url": url, "Address": address.ip().to_string(), "Port": address.port(), "Pid": std::process::id()}),
    )?;
    settings.cancel.wait();
    server.stop();
    Ok(())
}
