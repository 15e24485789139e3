//! The record itself: tasks are asked for, claimed, worked on and ended.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rusqlite::{Connection, OptionalExtension, Params, Transaction, TransactionBehavior, params};

use super::schema::{COLUMNS, failed, millis, open, path_in, read, state_word};
use super::{LISTED_FOR, NewTask, Origin, Owner, TaskRow, owner};
use crate::base::{Error, ErrorKind, Result, TaskKind, TaskState};

/// What is said of a run of the program that ended without a word.
const LOST: &str = "the process ended without a word; the same command goes on where it stopped";

/// What is said of a task that waited as long as tasks are listed.
const NOBODY: &str = "no server came for it in 31 days; ask again";

/// The record of tasks. Many may have it open, in many processes.
pub struct TaskDb {
    state: PathBuf,
    /// The file that is open, by device and number: somebody may remove it, or put another one
    /// there.
    file: Option<(u64, u64)>,
    /// Whoever only looks does not wait for what is being written.
    reader: Mutex<Connection>,
    writer: Mutex<Connection>,
}

/// Limits of what a server takes on, each of the tasks of its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Tasks that wait, at most.
    pub max_queued: u64,
    /// Bytes of volumes in unfinished tasks of one kind. The first task may be larger.
    pub max_bytes: u64,
}

/// Whose tasks are asked for. A scope is who and where, with a space between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeFilter<'a> {
    /// Those of one scope.
    Scope(&'a str),
    /// Those of everybody there, as long as nobody knows who asks.
    Endpoints(&'a str),
}

impl ScopeFilter<'_> {
    /// A pattern of SQLite's `GLOB`: in scopes nothing of it means anything but itself.
    fn pattern(&self) -> String {
        let plain = |text: &str| {
            text.chars()
                .map(
                    |char| {
                        if "*?[".contains(char) { format!("[{char}]") } else { char.to_string() }
                    },
                )
                .collect::<String>()
        };
        match self {
            Self::Scope(scope) => plain(scope),
            Self::Endpoints(place) => format!("* {}", plain(place)),
        }
    }
}

/// Why a task is not taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The image is being stored.
    Storing,
    /// An image of this name is being made, which has this reserved id.
    Name(String),
    /// So many tasks wait.
    Queued(u64),
    /// So many bytes are in unfinished tasks.
    Bytes(u64),
}

impl TaskDb {
    /// Opens the record in a state directory, and makes it if there is none.
    ///
    /// One that a newer version wrote is an error of kind `Unsupported`, a damaged one of kind
    /// `Corrupt`.
    pub fn open(state: &Path) -> Result<Self> {
        let (writer, reader) = (open(state)?, open(state)?);
        Ok(Self {
            state: state.to_owned(),
            file: identity(state),
            reader: Mutex::new(reader),
            writer: Mutex::new(writer),
        })
    }

    /// Whether there is a record in a state directory.
    pub fn is_in(state: &Path) -> bool {
        path_in(state).exists()
    }

    /// Begins a task that a run of the program works on at once. Gives its number.
    pub fn begin(&self, task: &NewTask, owner: &Owner) -> Result<i64> {
        self.write(|transaction| {
            insert(transaction, task, TaskState::InProgress, Some(owner.name()))
        })
    }

    /// Whether a server may take on a task now.
    pub fn check(&self, task: &NewTask, rules: &Rules) -> Result<Option<Conflict>> {
        self.settle()?;
        conflict(&lock(&self.reader), task, rules).map_err(|cause| self.failed(cause))
    }

    /// Has a task wait for a server, unless something speaks against it: both in one transaction,
    /// so that of two who ask one is refused. Gives its number.
    pub fn enqueue(&self, task: &NewTask, rules: &Rules) -> Result<Result<i64, Conflict>> {
        self.settle()?;
        self.write(|transaction| match conflict(transaction, task, rules)? {
            Some(conflict) => Ok(Err(conflict)),
            None => insert(transaction, task, TaskState::Queued, None).map(Ok),
        })
    }

    /// Whether a task of a server waits, of whatever scope.
    pub fn is_anything_waiting(&self) -> Result<bool> {
        self.settle()?;
        let waiting = "SELECT id FROM task WHERE state = 'queued' AND origin = 'server' LIMIT 1";
        first::<i64>(&lock(&self.reader), waiting, [])
            .map(|id| id.is_some())
            .map_err(|cause| self.failed(cause))
    }

    /// Has all tasks of a scope looked at now: what had to come first may have come.
    pub fn rouse(&self, scope: &str) -> Result<()> {
        self.change(
            "UPDATE task SET not_before = 0, left_for = 0 WHERE state = 'queued' AND scope = ?1",
            [scope],
        )
    }

    /// Takes the oldest task of a scope that waits, or whose server is gone, and for which nothing
    /// has to come first. Nobody else gets it as long as `owner` is there.
    pub fn claim(&self, scope: &str, owner: &Owner) -> Result<Option<TaskRow>> {
        self.settle()?;
        let waiting = "SELECT id FROM task WHERE state = 'queued' AND origin = 'server' AND scope = ?1 AND not_before <= ?2 ORDER BY not_before, id LIMIT 1";
        // Whoever finds nothing keeps nobody from writing.
        if first::<i64>(&lock(&self.reader), waiting, params![scope, now()])
            .map_err(|cause| self.failed(cause))?
            .is_none()
        {
            return Ok(None);
        }
        self.write(|transaction| {
            let Some(id) = first::<i64>(transaction, waiting, params![scope, now()])? else {
                return Ok(None);
            };
            transaction.execute(
                "UPDATE task SET state = 'running', owner = ?2, reason = NULL WHERE id = ?1",
                params![id, owner.name()],
            )?;
            transaction
                .query_row(&format!("SELECT {COLUMNS} FROM task WHERE id = ?1"), [id], read)
                .map(Some)
        })
    }

    /// Notes how far a task is. 100 is for its end.
    pub fn advance(&self, id: i64, owner: &Owner, percent: u8, bytes: u64) -> Result<()> {
        let update = "UPDATE task SET percent = ?3, bytes = ?4 WHERE id = ?1 AND owner = ?2 AND state = 'running'";
        self.change(update, params![id, owner.name(), percent.min(99), signed(bytes)])
    }

    /// Notes what EC2 calls the image of a restore, before its task file is gone: whoever goes on
    /// with it need not look for the image.
    pub fn note_image(&self, id: i64, owner: &Owner, image_id: &str) -> Result<()> {
        let update =
            "UPDATE task SET restored_id = ?3 WHERE id = ?1 AND owner = ?2 AND state = 'running'";
        self.change(update, params![id, owner.name(), image_id])
    }

    /// It ended well.
    pub fn complete(&self, id: i64, owner: &Owner) -> Result<()> {
        let update = "UPDATE task SET state = 'completed', percent = 100, ended = ?3, owner = NULL WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), now()])
    }

    /// It failed. `reason` is what people read.
    pub fn fail(&self, id: i64, owner: &Owner, reason: &str) -> Result<()> {
        let update = "UPDATE task SET state = 'failed', reason = ?4, ended = ?3, owner = NULL WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), now(), reason])
    }

    /// It was not begun: others are at it.
    pub fn forget(&self, id: i64, owner: &Owner) -> Result<()> {
        self.change("DELETE FROM task WHERE id = ?1 AND owner = ?2", params![id, owner.name()])
    }

    /// A server stops before the task ends: the next one goes on with it.
    pub fn release(&self, id: i64, owner: &Owner) -> Result<()> {
        self.change(
            "UPDATE task SET state = 'queued', owner = NULL WHERE id = ?1 AND owner = ?2",
            params![id, owner.name()],
        )
    }

    /// It is left because something has to come first: `reason` says what. It is claimed again
    /// after a second, and then ever later, up to a minute.
    pub fn postpone(&self, id: i64, owner: &Owner, reason: &str) -> Result<()> {
        let update = "UPDATE task SET state = 'queued', owner = NULL, reason = ?3, left_for = left_for + 1, \
             not_before = ?4 + MIN(1000 << MIN(left_for, 10), 60000) WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), reason, now()])
    }

    /// Store tasks as EC2 knows them, of an image into a bucket, of servers and of runs of the
    /// program: those of these images, or all.
    pub fn stores(&self, of: &ScopeFilter<'_>, image_ids: &[String]) -> Result<Vec<TaskRow>> {
        self.settle()?;
        let shown = "kind = 'store' AND bucket IS NOT NULL AND image_id IS NOT NULL AND (scope IS NULL OR scope GLOB ?2) AND (ended IS NULL OR ended >= ?1)";
        if image_ids.is_empty() {
            return self.select(shown, params![oldest(), of.pattern()]);
        }
        let mut rows = Vec::new();
        for image_id in image_ids {
            rows.extend(self.select(
                &format!("{shown} AND image_id = ?3"),
                params![oldest(), of.pattern(), image_id],
            )?);
        }
        Ok(rows)
    }

    /// All tasks of the last 31 days, the newest first; at most `limit`, unfinished ones before
    /// others.
    pub fn recent(&self, limit: usize) -> Result<Vec<TaskRow>> {
        self.settle()?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = self.select(
            "ended IS NULL OR ended >= ?1 ORDER BY ended IS NOT NULL, id DESC LIMIT ?2",
            params![oldest(), limit],
        )?;
        rows.sort_by_key(|row| std::cmp::Reverse((row.started, row.id)));
        Ok(rows)
    }

    /// The restore that promised an id.
    pub fn reserved(&self, of: &ScopeFilter<'_>, reserved_id: &str) -> Result<Option<TaskRow>> {
        self.settle()?;
        Ok(self
            .select("reserved_id = ?1 AND scope GLOB ?2", params![reserved_id, of.pattern()])?
            .pop())
    }

    /// How many tasks wait, and how many are worked on.
    pub fn unfinished(&self) -> Result<(u64, u64)> {
        let counts = "SELECT COUNT(*) FILTER (WHERE state = 'queued'), COUNT(*) FILTER (WHERE state = 'running') FROM task WHERE state IN ('queued', 'running')";
        let count = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (queued, running) =
            lock(&self.reader).query_row(counts, [], count).map_err(|cause| self.failed(cause))?;
        Ok((queued.unsigned_abs(), running.unsigned_abs()))
    }

    /// What owners that are gone left: tasks of servers wait again, runs of the program have
    /// failed.
    fn settle(&self) -> Result<()> {
        let owners =
            "SELECT DISTINCT owner FROM task WHERE state = 'running' AND owner IS NOT NULL";
        let read_owners = |connection: &Connection| -> rusqlite::Result<Vec<String>> {
            connection.prepare(owners)?.query_map([], |row| row.get(0))?.collect()
        };
        let found = read_owners(&lock(&self.reader)).map_err(|cause| self.failed(cause))?;
        let gone: Vec<String> =
            found.into_iter().filter(|name| !owner::is_alive(&self.state, name)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            for name in &gone {
                // It may have ended its tasks between our look at them and its own end.
                let requeue = "UPDATE task SET state = 'queued', owner = NULL WHERE owner = ?1 AND state = 'running' AND origin = 'server'";
                transaction.execute(requeue, [name])?;
                let fail = "UPDATE task SET state = 'failed', reason = ?2, ended = ?3, owner = NULL WHERE owner = ?1 AND state = 'running'";
                transaction.execute(fail, params![name, LOST, now()])?;
            }
            Ok(())
        })
    }

    fn select(&self, condition: &str, values: impl Params) -> Result<Vec<TaskRow>> {
        let connection = lock(&self.reader);
        let rows = || -> rusqlite::Result<Vec<TaskRow>> {
            let mut statement =
                connection.prepare(&format!("SELECT {COLUMNS} FROM task WHERE {condition}"))?;
            statement.query_map(values, read)?.collect()
        };
        rows().map_err(|cause| self.failed(cause))
    }

    pub(super) fn change(&self, update: &str, values: impl Params) -> Result<()> {
        self.write(|transaction| transaction.execute(update, values).map(drop))
    }

    /// Does something in one transaction, which nobody else writes in between.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = lock(&self.writer);
        if identity(&self.state) != self.file {
            let error = Error::new(
                ErrorKind::Io,
                "the record of tasks was removed or replaced, and what is written to it would be lost: start again",
            );
            return Err(error.at("path", path_in(&self.state).display()));
        }
        let done = connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(
            |transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            },
        );
        done.map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: rusqlite::Error) -> Error {
        failed(cause).at("path", path_in(&self.state).display())
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which file the record is at the moment.
fn identity(state: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path_in(state)).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn now() -> i64 {
    millis(SystemTime::now())
}

/// What ended before is not shown any more.
fn oldest() -> i64 {
    now().saturating_sub(i64::try_from(LISTED_FOR.as_millis()).unwrap_or(i64::MAX))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn first<T: rusqlite::types::FromSql>(
    connection: &Connection,
    select: &str,
    values: impl Params,
) -> rusqlite::Result<Option<T>> {
    connection.prepare(select)?.query_row(values, |row| row.get(0)).optional()
}

/// Adds a task, and removes those that nobody is shown any more: the record grows only when there
/// is something to add.
fn insert(
    transaction: &Transaction<'_>,
    task: &NewTask,
    state: TaskState,
    owner: Option<&str>,
) -> rusqlite::Result<i64> {
    // The reserved id of an image outlives the list of tasks: scripts keep it.
    let forget =
        "DELETE FROM task WHERE ended < ?1 AND (reserved_id IS NULL OR restored_id IS NULL)";
    transaction.execute(forget, [oldest()])?;
    let give_up = "UPDATE task SET state = 'failed', reason = ?2, ended = ?3 WHERE state = 'queued' AND started < ?1";
    transaction.execute(give_up, params![oldest(), NOBODY, now()])?;
    let insert = "INSERT INTO task (kind, origin, image_id, bucket, object_key, source, target, name, reserved_id, request, scope, size, state, started, owner) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let state = state_word(state);
    transaction.execute(
        insert,
        params![
            task.kind.name(),
            task.origin.name(),
            task.image_id,
            task.bucket,
            task.object_key,
            task.source,
            task.target,
            task.name,
            task.reserved_id,
            task.request,
            task.scope,
            signed(task.size),
            state,
            now(),
            owner,
        ],
    )?;
    Ok(transaction.last_insert_rowid())
}

/// What speaks against a task of a server.
fn conflict(
    connection: &Connection,
    task: &NewTask,
    rules: &Rules,
) -> rusqlite::Result<Option<Conflict>> {
    if task.kind == TaskKind::Store && task.bucket.is_some() {
        let storing = "SELECT id FROM task WHERE kind = 'store' AND image_id = ?1 AND bucket IS NOT NULL AND (scope IS NULL OR scope = ?2) AND state IN ('queued', 'running')";
        if first::<i64>(connection, storing, params![task.image_id, task.scope])?.is_some() {
            return Ok(Some(Conflict::Storing));
        }
    }
    if task.kind == TaskKind::Restore {
        let named = "SELECT reserved_id FROM task WHERE kind = 'restore' AND name = ?1 AND scope = ?2 AND reserved_id IS NOT NULL AND state IN ('queued', 'running')";
        if let Some(reserved) = first::<String>(connection, named, params![task.name, task.scope])?
        {
            return Ok(Some(Conflict::Name(reserved)));
        }
    }
    let waiting: i64 = first(
        connection,
        "SELECT COUNT(*) FROM task WHERE state = 'queued' AND left_for = 0 AND scope = ?1",
        [&task.scope],
    )?
    .unwrap_or(0);
    if waiting.unsigned_abs() >= rules.max_queued {
        return Ok(Some(Conflict::Queued(waiting.unsigned_abs())));
    }
    let under_way = "SELECT COALESCE(SUM(size), 0) FROM task WHERE kind = ?1 AND scope = ?2 AND state IN ('queued', 'running')";
    let bytes = first::<i64>(connection, under_way, params![task.kind.name(), task.scope])?
        .unwrap_or(0)
        .unsigned_abs();
    if bytes > 0 && bytes.saturating_add(task.size) > rules.max_bytes {
        return Ok(Some(Conflict::Bytes(bytes)));
    }
    debug_assert!(task.origin == Origin::Server, "runs of the program do not ask");
    Ok(None)
}
