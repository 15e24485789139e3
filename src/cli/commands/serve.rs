//! `amistore serve`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::args::{DoorArgs, ServeArgs};
use super::super::output::Console;
use super::super::remote::{Remote, Side};
use super::super::settings::{Settings, state_directory};
use crate::base::{Error, Result};
use crate::server::{AccessKeys, HttpServer, HttpSettings, Limits, Service, TlsFiles, Upstream, check_exposure, read_private};

/// How soon a signal is heard.
const PATIENCE: Duration = Duration::from_millis(50);

pub(in super::super) fn run(args: ServeArgs, settings: &Settings, console: &Console) -> Result<()> {
    // What is wrong with the doors is said before anything is opened behind them.
    let doors = HttpSettings { listen: args.listen, ..doors(&args.doors)? };
    check_exposure(&doors)?;
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let ec2 = remote.control(&args.sides.access(Side::Source), &args.sides.source_link())?;
    if args.forward && leads_to(&ec2.endpoint(), args.listen) {
        let error =
            Error::usage("the endpoint of EC2 is this server itself: start it without AWS_ENDPOINT_URL_EC2, which is for its clients");
        return Err(error.at("endpoint", ec2.endpoint()));
    }
    let region = ec2.region();
    let upstream = args.forward.then(|| Arc::new(ec2) as Arc<dyn Upstream>);
    let service = desk(&args)?;
    listen(HttpSettings { region, upstream, ..doors }, service, settings, console)
}

/// Whether a URL is that of a server that listens there: a request that it forwards would come back to it for ever.
fn leads_to(url: &str, listen: SocketAddr) -> bool {
    let authority = url.split("://").last().unwrap_or_default().split('/').next().unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip == listen.ip());
    is_here && port.parse() == Ok(listen.port())
}

/// Who does the work.
fn desk(args: &ServeArgs) -> Result<Arc<dyn Service>> {
    args.object.attributes()?;
    let state = state_directory(args.state.as_deref())?;
    let error = Error::unsupported("this build takes no tasks");
    Err(error.at("state", format!("{state:?}")).at("max_tasks", args.max_tasks).at("max_queued", args.max_queued))
}

fn doors(args: &DoorArgs) -> Result<HttpSettings> {
    let keys = args.access_keys.as_deref().map(AccessKeys::load).transpose()?;
    let password = args.status_password_file.as_deref().map(|path| {
        let text = read_private(path, "the password")?;
        let password = text.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() { Err(Error::usage("the password is empty").at("path", path.display())) } else { Ok(password) }
    });
    let tls = args.tls_cert.clone().zip(args.tls_key.clone()).map(|(certificate, key)| TlsFiles { certificate, key });
    let limits = Limits { connections: args.max_connections as usize, ..Limits::default() };
    Ok(HttpSettings { tls, keys, status_password: password.transpose()?, limits, ..HttpSettings::default() })
}

/// Answers until somebody asks to stop.
fn listen(doors: HttpSettings, service: Arc<dyn Service>, settings: &Settings, console: &Console) -> Result<()> {
    let server = HttpServer::start(doors, service)?;
    let (url, address) = (server.url(), server.address());
    console.result(
        || format!("listening on {url}\n"),
        || json!({"Url": url, "Address": address.ip().to_string(), "Port": address.port(), "Pid": std::process::id()}),
    )?;
    while !settings.cancel.is_cancelled() {
        std::thread::sleep(PATIENCE);
    }
    server.stop();
    Ok(())
}
