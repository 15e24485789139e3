//! Tasks as clients and pages see them.

use std::collections::HashMap;

use super::super::{
    Overview, Refusal, RestoreProgress, RestoredImage, Running, StorePage, StoreQuery, StoreResult,
};
use super::requests::RestoreWork;
use super::site::Site;
use super::{Shared, lock, refusal};
use crate::base::{Error, ImageId, Result, TaskState};
use crate::taskdb::{Filter, ScopeFilter, TaskRow, page};

/// The most tasks of an overview.
const SHOWN: usize = 200;

impl Shared {
    pub(super) fn store_tasks(
        &self,
        site: &Site,
        query: &StoreQuery,
    ) -> Result<StorePage, Refusal> {
        let image_ids: Vec<String> = query.image_ids.iter().map(ToString::to_string).collect();
        let rows = site
            .with_scope(|of| self.task_db.stores(of, &image_ids))
            .map_err(|error| refusal::of_record(&error))?;
        let filter =
            Filter { states: query.states.clone(), buckets: query.buckets.clone(), image_ids };
        let page = page(rows, &filter, query.limit, query.after.as_deref());
        let page = page.ok_or_else(|| {
            Refusal::client("InvalidPaginationToken", "The pagination token is not valid")
        })?;
        Ok(StorePage {
            tasks: page.rows.into_iter().map(|row| self.result(row)).collect(),
            next: page.next,
        })
    }

    pub(super) fn restored(
        &self,
        site: &Site,
        reserved: &ImageId,
    ) -> Result<Option<RestoredImage>, Refusal> {
        let row = site
            .with_scope(|of| self.task_db.reserved(of, reserved.as_str()))
            .map_err(|error| refusal::of_record(&error))?;
        row.map(|row| self.restored_of(row)).transpose().map_err(|error| refusal::of_record(&error))
    }

    pub(super) fn pending(&self, site: &Site) -> Result<Vec<RestoredImage>, Refusal> {
        let rows = site.with_scope(|of| self.task_db.restores(of));
        rows.and_then(|rows| rows.into_iter().map(|row| self.restored_of(row)).collect())
            .map_err(|error| refusal::of_record(&error))
    }

    pub(super) fn restored_ids(&self, site: &Site) -> Result<HashMap<String, String>, Refusal> {
        site.with_scope(|of| self.task_db.restored_images(of))
            .map(|pairs| pairs.into_iter().collect())
            .map_err(|error| refusal::of_record(&error))
    }

    /// The image of a restore with a reserved id.
    fn restored_of(&self, row: TaskRow) -> Result<RestoredImage> {
        let progress = match row.state {
            TaskState::Queued | TaskState::InProgress => RestoreProgress::Pending,
            TaskState::Completed => RestoreProgress::Available,
            TaskState::Failed => RestoreProgress::Failed,
        };
        let percent =
            lock(&self.running).get(&row.id).map_or(row.percent, |running| running.percent());
        // The snapshots of a failed restore are deleted, or continued by another one.
        let snapshots = match progress {
            RestoreProgress::Pending => self.task_db.begun_snapshots(row.id)?,
            _ => Vec::new(),
        };
        let work = row.task.request.as_deref().map(serde_json::from_str::<RestoreWork>);
        let work = work
            .transpose()
            .map_err(|cause| Error::internal("cannot read what was asked for").because(cause))?;
        let scope = row.task.scope.as_deref().unwrap_or_default();
        let account = scope.split(' ').next().unwrap_or_default();
        Ok(RestoredImage {
            reserved: ImageId::parse(row.task.reserved_id.as_deref().unwrap_or_default())?,
            image_id: row.restored_id.as_deref().map(ImageId::parse).transpose()?,
            name: row.task.name,
            location: format!(
                "{}/{}",
                row.task.bucket.unwrap_or_default(),
                row.task.object_key.unwrap_or_default()
            ),
            started: row.started,
            progress,
            percent,
            reason: row.reason.filter(|_| row.state == TaskState::Failed),
            owner: is_account(account).then(|| account.to_owned()),
            attributes: work.map(|work| work.image.into_iter().collect()).unwrap_or_default(),
            snapshots,
        })
    }

    pub(super) fn overview(&self) -> Result<Overview, Refusal> {
        // Before an account is known, no task is known to belong to it.
        let scopes = self.known_scopes();
        let of = ScopeFilter::Scopes(&scopes);
        let read =
            || Ok::<_, Error>((self.task_db.recent_of(&of, SHOWN)?, self.task_db.unfinished(&of)?));
        let (rows, (queued, running)) = read().map_err(|error| refusal::of_record(&error))?;
        let counters = self.counters.snapshot();
        Ok(Overview {
            tasks: rows.into_iter().map(|row| self.shown(row)).collect(),
            queued,
            running,
            completed: counters.completed,
            failed: counters.failed,
            bytes: counters.bytes,
            transferred: counters.transferred,
            retries: counters.retries,
        })
    }

    fn result(&self, row: TaskRow) -> StoreResult {
        StoreResult {
            percent: lock(&self.running).get(&row.id).map_or(row.percent, |live| live.percent()),
            image_id: row.task.image_id.unwrap_or_default(),
            started: row.started,
            bucket: row.task.bucket.unwrap_or_default(),
            object_key: row.task.object_key.unwrap_or_default(),
            state: row.state.name(),
            reason: row.reason.filter(|_| row.state == TaskState::Failed),
        }
    }

    fn shown(&self, row: TaskRow) -> Running {
        // For tasks that run here the live progress is newer than the recorded one.
        let running = lock(&self.running);
        let live = running.get(&row.id);
        Running {
            kind: row.task.kind.name(),
            image_id: row.task.image_id,
            name: row.task.name,
            size: Some(row.task.size).filter(|size| *size > 0),
            restored_id: row.restored_id,
            source: row.task.source,
            target: row.task.target,
            started: row.started,
            ended: row.ended,
            state: row.state.name(),
            queued: row.state == TaskState::Queued,
            percent: live.map_or(row.percent, |live| live.percent()),
            rate: live.and_then(|live| live.rate()),
            time_left: live.and_then(|live| live.time_left()),
            reason: if row.state == TaskState::Queued {
                row.reason.map(|reason| format!("waits for {reason}"))
            } else {
                row.reason
            },
            origin: row.task.origin.name(),
        }
    }
}

/// Services without accounts have other identities.
fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
