//! Leftovers of unfinished work: uploads, snapshots, partial volumes and partial files, found and
//! removed.
//!
//! It does not remove the leftovers of a task that a process works on.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::local_leftover::LocalLeftover;
use super::{TaskProgress, describe_tasks};
use crate::aws::ec2::delete_snapshot;
use crate::aws::s3::{ObjectOptions, S3Location};
use crate::aws::{Access, RequestSettings, Session};
use crate::base::{Error, Result, TaskKind, TaskState, rfc3339};
use crate::checkpoint::StateDirectory;
use crate::image::ImageDirectoryWriter;
#[cfg(feature = "server")]
use crate::taskdb::recorded_runs;

/// A leftover of unfinished work.
#[derive(Clone, Debug)]
pub struct Leftover {
    /// An upload, a snapshot, partial volumes, or a partial file.
    pub what: &'static str,
    /// Its URL, id or path.
    pub location: String,
    /// The id of an upload.
    pub upload_id: Option<String>,
    /// Begin of the work: RFC 3339, UTC.
    pub begun: String,
    /// Whether a task file of this machine names it, so that the work can be continued.
    pub ours: bool,
    /// True if it was removed.
    pub removed: bool,
}

/// The leftovers to look for, and whether they are removed.
pub struct CleanOptions {
    /// Leftovers of work that began later are left out.
    pub began_before: Option<SystemTime>,
    /// Uploads of other machines are looked for below this prefix.
    pub uploads_below: Option<S3Location>,
    /// Partial files that no record names are looked for in this directory.
    pub files_in: Option<PathBuf>,
    /// Recorded leftovers are removed.
    pub abort: bool,
    /// With `abort`, leftovers without a record on this machine are removed as well.
    pub others: bool,
}

/// The leftovers that were found, and the first error: a leftover that cannot be removed does not
/// hide the others.
pub struct Cleaned {
    /// The leftovers, those of this machine first.
    pub leftovers: Vec<Leftover>,
    /// The first failure to remove leftovers of a task.
    pub failed: Option<Error>,
}

/// The connections with which leftovers in AWS are found and removed.
pub struct CleanAccess<'a> {
    /// Makes the connections.
    pub session: &'a Session,
    /// Retries, timeouts and limits.
    pub settings: RequestSettings,
    /// Members that are set come before those that the task noted.
    pub access: Access,
}

/// Finds leftovers, and removes them if `options` ask for it. Errors: the state directory or the
/// bucket cannot be listed, or an upload of another machine cannot be aborted.
pub fn clean(
    directory: &StateDirectory,
    options: &CleanOptions,
    aws: &CleanAccess<'_>,
) -> Result<Cleaned> {
    let newest = options.began_before.map(rfc3339);
    let old_enough = |begun: &str| newest.as_deref().is_none_or(|newest| begun < newest);
    let tasks = describe_tasks(directory)?;
    let mut cleaned = Cleaned { leftovers: Vec::new(), failed: None };
    let is_over = |task: &&TaskProgress| {
        task.state == TaskState::Failed && old_enough(&task.entry.header.started)
    };
    for task in tasks.iter().filter(is_over) {
        if let Err(error) = clean_task(task, options.abort, aws, &mut cleaned.leftovers) {
            cleaned.failed.get_or_insert(error);
        }
    }
    #[cfg(feature = "server")]
    clean_recorded_runs(directory, options, &old_enough, &mut cleaned)?;
    if let Some(path) = &options.files_in {
        let tags: Vec<String> = tasks.iter().map(|task| task.entry.header.tag()).collect();
        for local in LocalLeftover::all_in(path, &tags)? {
            let begun = rfc3339(local.modified(path)?);
            if old_enough(&begun) {
                cleaned.add_local(local, begun, (false, options.abort && options.others));
            }
        }
    }
    let Some(prefix) = &options.uploads_below else { return Ok(cleaned) };
    let store = aws.session.bucket(
        &prefix.bucket,
        aws.access.clone(),
        &aws.settings,
        ObjectOptions::default(),
    )?;
    let is_known = |id: &str| {
        tasks.iter().flat_map(|task| &task.uploads).any(|known| known.upload_id == id)
            || cleaned.leftovers.iter().any(|known| known.upload_id.as_deref() == Some(id))
    };
    let mut uploads = Vec::new();
    store.open_uploads(&prefix.key, &mut |upload| {
        let is_archive = upload.key.ends_with(".bin");
        if is_archive && !is_known(&upload.upload_id) && old_enough(&upload.initiated) {
            uploads.push(upload);
        }
        Ok(())
    })?;
    for upload in uploads {
        let removed = options.abort && options.others;
        if removed {
            store.abort_upload(&upload.key, &upload.upload_id)?;
        }
        let location = S3Location { bucket: prefix.bucket.clone(), key: upload.key };
        cleaned.leftovers.push(Leftover {
            what: "upload",
            location: location.to_string(),
            upload_id: Some(upload.upload_id),
            begun: upload.initiated,
            ours: false,
            removed,
        });
    }
    Ok(cleaned)
}

/// Lists the leftovers of recorded runs that failed, and removes them if `options` ask for it. Work
/// on local files has no task file, except for a restore from a bucket.
#[cfg(feature = "server")]
fn clean_recorded_runs(
    directory: &StateDirectory,
    options: &CleanOptions,
    old_enough: &dyn Fn(&str) -> bool,
    cleaned: &mut Cleaned,
) -> Result<()> {
    for run in recorded_runs(directory.path())? {
        let begun = rfc3339(run.started);
        if run.state == TaskState::Failed
            && old_enough(&begun)
            && let Some(local) = LocalLeftover::of_target(run.task.kind, &run.task.target)?
        {
            cleaned.add_local(local, begun, (true, options.abort));
        }
    }
    Ok(())
}

impl Cleaned {
    /// Lists a local leftover that was not listed, and removes it if `removes`.
    fn add_local(&mut self, local: LocalLeftover, begun: String, (ours, removes): (bool, bool)) {
        let mut leftover = Leftover {
            what: match &local {
                LocalLeftover::Volumes(_) => "partial volumes",
                LocalLeftover::File(_) => "partial file",
            },
            location: local.location(),
            upload_id: None,
            begun,
            ours,
            removed: false,
        };
        if self.leftovers.iter().any(|known| known.location == leftover.location) {
            return;
        }
        if removes {
            match local.remove() {
                Ok(()) => leftover.removed = true,
                Err(error) => {
                    self.failed.get_or_insert(error);
                }
            }
        }
        self.leftovers.push(leftover);
    }
}

/// Lists the leftovers of a task, and with `abort` removes them.
fn clean_task(
    task: &TaskProgress,
    abort: bool,
    aws: &CleanAccess<'_>,
    found: &mut Vec<Leftover>,
) -> Result<()> {
    let header = &task.entry.header;
    // A process that continues the task in this moment keeps its leftovers.
    let lock = if abort { task.entry.lock()? } else { None };
    if abort && lock.is_none() {
        return Ok(());
    }
    let leftover = |what: &'static str, location: String| Leftover {
        what,
        location,
        upload_id: None,
        begun: header.started.clone(),
        ours: true,
        removed: false,
    };
    if let Some(intent) = &task.intent {
        let access = aws.access_at(&intent.endpoint, &intent.region, intent.profile.as_deref());
        let options = ObjectOptions::default();
        let store = aws.session.bucket(&intent.bucket, access, &aws.settings, options)?;
        let location = S3Location { bucket: intent.bucket.clone(), key: intent.key.clone() };
        for upload in store.unrecorded_uploads(&intent.key, &intent.started)? {
            found.push(Leftover {
                upload_id: Some(upload.upload_id.clone()),
                ..leftover("upload", location.to_string())
            });
            if abort {
                store.abort_upload(&upload.key, &upload.upload_id)?;
                mark_removed(found);
            }
        }
    }
    for upload in &task.uploads {
        let location = S3Location { bucket: upload.bucket.clone(), key: upload.key.clone() };
        found.push(Leftover {
            upload_id: Some(upload.upload_id.clone()),
            ..leftover("upload", location.to_string())
        });
        if abort {
            let access = aws.access_at(&upload.endpoint, &upload.region, upload.profile.as_deref());
            let store = aws.session.bucket(
                &upload.bucket,
                access,
                &aws.settings,
                ObjectOptions::default(),
            )?;
            store.abort_upload(&upload.key, &upload.upload_id)?;
            mark_removed(found);
        }
    }
    for snapshot in &task.snapshots {
        let location = format!("{} in {}", snapshot.snapshot_id, snapshot.region);
        found.push(leftover("snapshot", location));
        if abort {
            let profile = snapshot.profile.as_deref();
            let access = aws.access_at(&snapshot.ec2_endpoint, &snapshot.region, profile);
            let ec2 = aws.session.ec2(&access, &aws.settings)?;
            match (delete_snapshot(&ec2, &snapshot.snapshot_id)?, found.last_mut()) {
                (true, _) => mark_removed(found),
                // The restore was killed after its image was registered.
                (false, Some(last)) => last.what = "snapshot that an image uses",
                (false, None) => {}
            }
        }
    }
    // A directory is named by its absolute path, EC2 by its Region.
    if header.kind == TaskKind::Restore && Path::new(&header.target).is_absolute() {
        found.push(leftover("partial volumes", header.target.clone()));
        if abort {
            ImageDirectoryWriter::remove_partial(Path::new(&header.target), &header.tag())?;
            mark_removed(found);
        }
    }
    if abort { task.entry.remove() } else { Ok(()) }
}

/// The last leftover was removed.
fn mark_removed(found: &mut [Leftover]) {
    if let Some(last) = found.last_mut() {
        last.removed = true;
    }
}

impl CleanAccess<'_> {
    /// The service that a task noted, unless another is asked for.
    fn access_at(&self, endpoint: &str, region: &str, profile: Option<&str>) -> Access {
        let noted = Some(endpoint.to_owned()).filter(|endpoint| !endpoint.is_empty());
        Access {
            endpoint_url: self.access.endpoint_url.clone().or(noted),
            region: self.access.region.clone().or_else(|| Some(region.to_owned())),
            profile: self.access.profile.clone().or_else(|| profile.map(ToOwned::to_owned)),
            ..self.access.clone()
        }
    }
}
