//! `amistore clean`.

use std::path::Path;
use std::time::SystemTime;

use super::super::args::CleanArgs;
use super::super::output::{Console, cleaned, cleaned_text};
use super::super::remote::Remote;
use super::super::settings::{Place, Settings, parse_age, state_directory};
use crate::aws::Access;
use crate::aws::ec2::delete_snapshot;
use crate::aws::s3::{ObjectOptions, S3Location};
use crate::base::{Error, Result, TaskKind, TaskState, rfc3339};
use crate::image::{ImageDirectoryWriter, SnapshotBegun};
use crate::object::UploadBegun;
use crate::ops::{self, TaskProgress};

/// Something that was left behind.
#[derive(Clone, Debug)]
pub(in super::super) struct Leftover {
    /// What it is: an upload, a snapshot, or partial volumes.
    pub(in super::super) what: &'static str,
    /// Where it is.
    pub(in super::super) place: String,
    /// Of an upload.
    pub(in super::super) upload_id: Option<String>,
    /// When it was begun.
    pub(in super::super) begun: String,
    /// Whether it is remembered here, and could be continued.
    pub(in super::super) ours: bool,
    /// Whether it was removed.
    pub(in super::super) removed: bool,
}

pub(in super::super) fn run(args: CleanArgs, settings: &Settings, console: &Console) -> Result<()> {
    let observer = console.observer();
    let remote = Remote::new(settings, &observer);
    let directory = state_directory(args.state.as_deref())?;
    let newest = match &args.older_than {
        None => None,
        Some(age) => Some(rfc3339(
            SystemTime::now().checked_sub(parse_age(age)?).unwrap_or(SystemTime::UNIX_EPOCH),
        )),
    };
    let old_enough = |begun: &str| newest.as_deref().is_none_or(|newest| begun < newest);
    let all = ops::describe_tasks(&directory)?;
    let known: Vec<String> =
        all.iter().flat_map(|task| &task.uploads).map(|upload| upload.upload_id.clone()).collect();
    let mut found = Vec::new();
    // One that cannot be removed does not keep the others from it, nor from being told.
    let mut failed = None;
    for task in all
        .iter()
        .filter(|task| task.state == TaskState::Failed && old_enough(&task.entry.header.started))
    {
        if let Err(error) = clean_task(task, &args, &remote, &mut found) {
            failed.get_or_insert(error);
        }
    }
    if let Some(store) = &args.store {
        let Place::S3(place) = Place::parse(store)? else {
            return Err(Error::usage(
                "uploads are looked for in buckets: s3://BUCKET or s3://BUCKET/PREFIX",
            ));
        };
        let store =
            remote.store(&place, args.aws.access(), &args.aws.link, ObjectOptions::default())?;
        let mut uploads = Vec::new();
        store.open_uploads(&place.key, &mut |upload| {
            if upload.key.ends_with(".bin")
                && !known.contains(&upload.upload_id)
                && old_enough(&upload.initiated)
            {
                uploads.push(upload);
            }
            Ok(())
        })?;
        for upload in uploads {
            let removed = args.abort && args.others;
            if removed {
                store.abort_upload(&upload.key, &upload.upload_id)?;
            }
            let place = S3Location { bucket: place.bucket.clone(), key: upload.key };
            let (place, upload_id) = (place.to_string(), Some(upload.upload_id));
            found.push(Leftover {
                what: "upload",
                place,
                upload_id,
                begun: upload.initiated,
                ours: false,
                removed,
            });
        }
    }
    drop(observer);
    console.result(|| cleaned_text(&found, args.abort), || cleaned(&found))?;
    failed.map_or(Ok(()), Err)
}

/// Lists what a task left behind, and removes it if that is asked for.
fn clean_task(
    task: &TaskProgress,
    args: &CleanArgs,
    remote: &Remote,
    found: &mut Vec<Leftover>,
) -> Result<()> {
    let header = &task.entry.header;
    // Whoever continues it in this moment keeps it.
    let held = if args.abort { task.entry.lock()? } else { None };
    if args.abort && held.is_none() {
        return Ok(());
    }
    let leftover = |what: &'static str, place: String| {
        let (begun, removed) = (header.started.clone(), false);
        Leftover { what, place, upload_id: None, begun, ours: true, removed }
    };
    for upload in &task.uploads {
        let place = S3Location { bucket: upload.bucket.clone(), key: upload.key.clone() };
        found.push(Leftover {
            upload_id: Some(upload.upload_id.clone()),
            ..leftover("upload", place.to_string())
        });
        if args.abort {
            let store = remote.store(
                &place,
                access_of(args, upload),
                &args.aws.link,
                ObjectOptions::default(),
            )?;
            store.abort_upload(&upload.key, &upload.upload_id)?;
            removed(found);
        }
    }
    for snapshot in &task.snapshots {
        found
            .push(leftover("snapshot", format!("{} in {}", snapshot.snapshot_id, snapshot.region)));
        if args.abort {
            let ec2 = remote.control(&access_of_snapshot(args, snapshot), &args.aws.link)?;
            match (delete_snapshot(&ec2, &snapshot.snapshot_id)?, found.last_mut()) {
                (true, _) => removed(found),
                // The restore was killed when all was done.
                (false, Some(last)) => last.what = "snapshot that an image uses",
                (false, None) => {}
            }
        }
    }
    // A directory is known by its absolute path, and EC2 by its name.
    if header.kind == TaskKind::Restore && Path::new(&header.target).is_absolute() {
        found.push(leftover("partial volumes", header.target.clone()));
        if args.abort {
            ImageDirectoryWriter::remove_partial(Path::new(&header.target), &header.tag())?;
            removed(found);
        }
    }
    if args.abort { task.entry.remove() } else { Ok(()) }
}

/// What was found last is not there any more.
fn removed(found: &mut [Leftover]) {
    if let Some(last) = found.last_mut() {
        last.removed = true;
    }
}

/// The service that the upload was begun at, unless another is asked for.
fn access_of(args: &CleanArgs, upload: &UploadBegun) -> Access {
    access_at(args, (&upload.endpoint, &upload.region, upload.profile.as_ref()))
}

/// The same for a snapshot.
fn access_of_snapshot(args: &CleanArgs, snapshot: &SnapshotBegun) -> Access {
    access_at(args, (&snapshot.ec2_endpoint, &snapshot.region, snapshot.profile.as_ref()))
}

fn access_at(
    args: &CleanArgs,
    (endpoint, region, profile): (&str, &str, Option<&String>),
) -> Access {
    let access = args.aws.access();
    let endpoint = Some(endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty());
    Access {
        endpoint_url: access.endpoint_url.clone().or(endpoint),
        region: access.region.clone().or_else(|| Some(region.to_owned())),
        profile: access.profile.clone().or_else(|| profile.cloned()),
        ..access
    }
}
