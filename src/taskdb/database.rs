//! The database itself: tasks are requested, claimed, performed and ended.

use std::cmp::Reverse;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, OptionalExtension, Params, Transaction, TransactionBehavior, params};

use super::schema::{COLUMNS, failed, millis, open, path_in, read};
use super::{LISTED_FOR, LOST, NewTask, Origin, Owner, ProgressLog, TaskRow, owner, recorded_runs};
use crate::base::{Clock, Error, ErrorKind, Result, TaskKind, TaskState};
use crate::localfs::exists;

/// The reason of a task that waited as long as tasks are listed.
const UNCLAIMED: &str = "no server came for it in 31 days; ask again";

/// The longest wait of a postponed task, in milliseconds.
const LONGEST_WAIT: i64 = 60_000;

/// The tasks of a [`ScopeFilter`].
pub(super) const IN_SCOPE: &str =
    "EXISTS (SELECT 1 FROM json_each(?1) WHERE task.scope GLOB value)";

/// The most by which the wall clock may run ahead of the time that this process measures, before
/// tasks count as old: a clock is corrected, and the time in suspension is not measured.
const CLOCK_CORRECTION: Duration = Duration::from_secs(86_400);

/// The task database. Many processes may have it open.
pub struct TaskDb {
    state: PathBuf,
    /// Device and inode of the open file: another process may remove or replace it.
    file: Option<(u64, u64)>,
    /// A connection of its own: readers wait for a writer only while it commits.
    reader: Mutex<Connection>,
    writer: Mutex<Connection>,
    clock: Clock,
    /// The time of the wall clock when the database was opened, and the start of a measurement.
    opened: (SystemTime, Instant),
}

/// Limits of the tasks of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The most waiting tasks.
    pub max_queued: u64,
    /// Bytes of volumes in unfinished tasks of one kind. The first task may be larger.
    pub max_bytes: u64,
}

/// Selects tasks by scope: an account, and Region and endpoints, with a space between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeFilter<'a> {
    /// The tasks of one scope.
    Scope(&'a str),
    /// The tasks of these scopes.
    Scopes(&'a [&'a str]),
    /// The tasks of all accounts at these endpoints, for as long as the account is unknown.
    Endpoints(&'a str),
    /// The tasks of all scopes.
    All,
}

impl ScopeFilter<'_> {
    /// Patterns of SQLite's `GLOB` in a JSON array; scopes are escaped in them.
    pub(super) fn patterns(&self) -> String {
        let plain = |text: &str| {
            text.chars()
                .map(
                    |char| {
                        if "*?[".contains(char) { format!("[{char}]") } else { char.to_string() }
                    },
                )
                .collect::<String>()
        };
        let patterns: Vec<String> = match self {
            Self::Scope(scope) => vec![plain(scope)],
            Self::Scopes(scopes) => scopes.iter().map(|scope| plain(scope)).collect(),
            Self::Endpoints(endpoints) => vec![format!("* {}", plain(endpoints))],
            Self::All => vec!["*".to_owned()],
        };
        serde_json::Value::from(patterns).to_string()
    }
}

/// The reason to refuse a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// The image is being stored.
    Storing,
    /// An image of this name is being made, which has this reserved id.
    Name(String),
    /// The given number of tasks wait.
    Queued(u64),
    /// Unfinished tasks have the given number of bytes.
    Bytes(u64),
}

impl TaskDb {
    /// Opens the database in a state directory, or makes it.
    ///
    /// A database of a newer version is an error of kind `Unsupported`, a damaged one of kind
    /// `Corrupt`.
    pub fn open(state: &Path) -> Result<Self> {
        Self::with_clock(state, Clock::default())
    }

    /// Opens the database with another wall clock than that of the operating system.
    pub fn with_clock(state: &Path, clock: Clock) -> Result<Self> {
        let (writer, reader) = (open(state)?, open(state)?);
        Ok(Self {
            opened: (clock.now(), Instant::now()),
            clock,
            state: state.to_owned(),
            file: identity(state),
            reader: Mutex::new(reader),
            writer: Mutex::new(writer),
        })
    }

    /// Tells whether a state directory has a database.
    pub fn is_in(state: &Path) -> Result<bool> {
        exists(&path_in(state))
    }

    /// Checks whether a server may accept a task now.
    pub fn check(&self, task: &NewTask, rules: &Rules) -> Result<Option<Conflict>> {
        self.settle()?;
        if self.is_stored_by_run(task)? {
            return Ok(Some(Conflict::Storing));
        }
        conflict(&lock(&self.reader), task, rules).map_err(|cause| self.failed(cause))
    }

    /// Queues a task for a server, unless there is a conflict. Check and insert are one
    /// transaction: of two conflicting requests one is refused. Returns the number of the task.
    pub fn enqueue(&self, task: &NewTask, rules: &Rules) -> Result<Result<i64, Conflict>> {
        self.settle()?;
        if self.is_stored_by_run(task)? {
            return Ok(Err(Conflict::Storing));
        }
        let times = self.times();
        self.write(|transaction| match conflict(transaction, task, rules)? {
            Some(conflict) => Ok(Err(conflict)),
            None => insert(transaction, task, &times).map(Ok),
        })
    }

    /// Tells whether a task for these endpoints is recorded, of any account.
    pub fn has_tasks_at(&self, endpoints: &str) -> Result<bool> {
        let recorded = format!("SELECT id FROM task WHERE {IN_SCOPE} LIMIT 1");
        let endpoints = ScopeFilter::Endpoints(endpoints).patterns();
        first::<i64>(&lock(&self.reader), &recorded, [endpoints])
            .map(|id| id.is_some())
            .map_err(|cause| self.failed(cause))
    }

    /// Makes the postponed tasks of a scope due: their condition may be met now.
    pub fn rouse(&self, scope: &str) -> Result<()> {
        self.change(
            "UPDATE task SET not_before = 0, left_for = 0 WHERE state = 'queued' AND scope = ?1",
            [scope],
        )
    }

    /// Claims the oldest due task of these scopes that waits or whose server is gone. It stays
    /// claimed as long as `owner` exists.
    ///
    /// A task that is due later than the longest wait from now was postponed while the wall clock
    /// was ahead, and is due at once.
    pub fn claim(&self, scopes: &[&str], owner: &Owner) -> Result<Option<TaskRow>> {
        self.settle()?;
        let scopes = serde_json::Value::from(scopes).to_string();
        let waiting = "SELECT id FROM task WHERE state = 'queued' AND origin = 'server' \
             AND scope IN (SELECT value FROM json_each(?1)) \
             AND (not_before <= ?2 OR not_before > ?2 + ?3) \
             ORDER BY not_before, id LIMIT 1";
        let due = params![scopes, self.now(), LONGEST_WAIT];
        // Without a waiting task no write lock is taken.
        if first::<i64>(&lock(&self.reader), waiting, due)
            .map_err(|cause| self.failed(cause))?
            .is_none()
        {
            return Ok(None);
        }
        self.write(|transaction| {
            let Some(id) = first::<i64>(transaction, waiting, due)? else {
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

    /// Records progress, up to 99 percent: 100 is for the end.
    pub fn advance(&self, id: i64, owner: &Owner, percent: u8, bytes: u64) -> Result<()> {
        let update = "UPDATE task SET percent = ?3, bytes = ?4 \
             WHERE id = ?1 AND owner = ?2 AND state = 'running'";
        self.change(update, params![id, owner.name(), percent.min(99), signed(bytes)])
    }

    /// Records EC2's id of the image of a restore, before its task file is removed: a server that
    /// continues the task need not search for the image.
    pub fn note_image(&self, id: i64, owner: &Owner, image_id: &str) -> Result<()> {
        let update =
            "UPDATE task SET restored_id = ?3 WHERE id = ?1 AND owner = ?2 AND state = 'running'";
        self.change(update, params![id, owner.name(), image_id])
    }

    /// Completes a task.
    pub fn complete(&self, id: i64, owner: &Owner) -> Result<()> {
        let update = "UPDATE task SET state = 'completed', percent = 100, ended = ?3, owner = NULL \
             WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), self.now()])
    }

    /// Ends a task as failed. People read `reason`.
    pub fn fail(&self, id: i64, owner: &Owner, reason: &str) -> Result<()> {
        let update = "UPDATE task SET state = 'failed', reason = ?4, ended = ?3, owner = NULL \
             WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), self.now(), reason])
    }

    /// Removes a task that was not begun, because another process performs it.
    pub fn forget(&self, id: i64, owner: &Owner) -> Result<()> {
        self.change("DELETE FROM task WHERE id = ?1 AND owner = ?2", params![id, owner.name()])
    }

    /// Queues a task again when its server stops: the next server continues it.
    pub fn release(&self, id: i64, owner: &Owner) -> Result<()> {
        self.change(
            "UPDATE task SET state = 'queued', owner = NULL WHERE id = ?1 AND owner = ?2",
            params![id, owner.name()],
        )
    }

    /// Queues a task again until a condition is met, which `reason` names. It is due after 1 s, and
    /// then after doubled times up to 60 s.
    pub fn postpone(&self, id: i64, owner: &Owner, reason: &str) -> Result<()> {
        let update = "UPDATE task SET state = 'queued', owner = NULL, reason = ?3, \
             left_for = left_for + 1, \
             not_before = ?4 + MIN(1000 << MIN(left_for, 10), ?5) WHERE id = ?1 AND owner = ?2";
        self.change(update, params![id, owner.name(), reason, self.now(), LONGEST_WAIT])
    }

    /// Store tasks of an image into a bucket, as EC2 has them, of servers and of runs of the
    /// program: of these images, or of all.
    pub fn stores(&self, of: &ScopeFilter<'_>, image_ids: &[String]) -> Result<Vec<TaskRow>> {
        self.settle()?;
        let shown = format!(
            "{IN_SCOPE} AND kind = 'store' AND bucket IS NOT NULL AND image_id IS NOT NULL \
             AND (ended IS NULL OR ended >= ?2)"
        );
        let mut rows = recorded_runs(&self.state)?;
        rows.retain(|row| {
            let id = row.task.image_id.as_ref();
            let is_selected = image_ids.is_empty() || id.is_some_and(|id| image_ids.contains(id));
            row.task.kind == TaskKind::Store
                && row.task.bucket.is_some()
                && id.is_some()
                && is_selected
        });
        if image_ids.is_empty() {
            rows.extend(self.select(&shown, params![of.patterns(), self.oldest()])?);
            return Ok(rows);
        }
        for image_id in image_ids {
            rows.extend(self.select(
                &format!("{shown} AND image_id = ?3"),
                params![of.patterns(), self.oldest(), image_id],
            )?);
        }
        Ok(rows)
    }

    /// All tasks of the last 31 days, the newest first; at most `limit`, of which unfinished tasks
    /// come before ended ones.
    pub fn recent(&self, limit: usize) -> Result<Vec<TaskRow>> {
        self.recent_of(&ScopeFilter::All, limit)
    }

    /// The tasks of [`recent`](Self::recent) in a scope. Runs of the program have no scope: no
    /// account is known to own them.
    pub fn recent_of(&self, of: &ScopeFilter<'_>, limit: usize) -> Result<Vec<TaskRow>> {
        self.settle()?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let shown = format!(
            "{IN_SCOPE} AND (ended IS NULL OR ended >= ?2) \
             ORDER BY ended IS NOT NULL, id DESC LIMIT ?3"
        );
        let mut rows = self.select(&shown, params![of.patterns(), self.oldest(), most])?;
        if *of == ScopeFilter::All {
            rows.extend(recorded_runs(&self.state)?);
        }
        rows.sort_by_key(|row| (row.ended.is_some(), Reverse((row.started, row.id))));
        rows.truncate(limit);
        rows.sort_by_key(|row| Reverse((row.started, row.id)));
        Ok(rows)
    }

    /// The restore with a reserved id.
    pub fn reserved(&self, of: &ScopeFilter<'_>, reserved_id: &str) -> Result<Option<TaskRow>> {
        self.settle()?;
        Ok(self
            .select(
                &format!("{IN_SCOPE} AND reserved_id = ?2"),
                params![of.patterns(), reserved_id],
            )?
            .pop())
    }

    /// The numbers of waiting and of running tasks in a scope; of [`ScopeFilter::All`] with runs of
    /// the program.
    pub fn unfinished(&self, of: &ScopeFilter<'_>) -> Result<(u64, u64)> {
        let counts = format!(
            "SELECT COUNT(*) FILTER (WHERE state = 'queued'), \
             COUNT(*) FILTER (WHERE state = 'running') \
             FROM task WHERE {IN_SCOPE} AND state IN ('queued', 'running')"
        );
        let count = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let (queued, running) = lock(&self.reader)
            .query_row(&counts, [of.patterns()], count)
            .map_err(|cause| self.failed(cause))?;
        if *of != ScopeFilter::All {
            return Ok((queued.unsigned_abs(), running.unsigned_abs()));
        }
        let runs = recorded_runs(&self.state)?;
        let runs = runs.iter().filter(|row| row.state == TaskState::InProgress).count() as u64;
        Ok((queued.unsigned_abs(), running.unsigned_abs() + runs))
    }

    /// Settles the tasks of owners that are gone: tasks of servers wait again, runs of the program
    /// have failed.
    pub(super) fn settle(&self) -> Result<()> {
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
        let now = self.now();
        self.write(|transaction| {
            for name in &gone {
                // An owner may have ended its tasks since they were read.
                let requeue = "UPDATE task SET state = 'queued', owner = NULL \
                     WHERE owner = ?1 AND state = 'running' AND origin = 'server'";
                transaction.execute(requeue, [name])?;
                let fail = "UPDATE task SET state = 'failed', reason = ?2, ended = ?3, \
                     owner = NULL WHERE owner = ?1 AND state = 'running'";
                transaction.execute(fail, params![name, LOST, now])?;
            }
            Ok(())
        })
    }

    /// Whether a run of the program stores the image into a bucket now.
    fn is_stored_by_run(&self, task: &NewTask) -> Result<bool> {
        if task.kind != TaskKind::Store || task.bucket.is_none() {
            return Ok(false);
        }
        Ok(recorded_runs(&self.state)?.iter().any(|row| {
            row.state == TaskState::InProgress
                && row.task.kind == TaskKind::Store
                && row.task.bucket.is_some()
                && row.task.image_id == task.image_id
        }))
    }

    pub(super) fn select(&self, condition: &str, values: impl Params) -> Result<Vec<TaskRow>> {
        let connection = lock(&self.reader);
        let rows = || -> rusqlite::Result<Vec<TaskRow>> {
            let mut statement =
                connection.prepare(&format!("SELECT {COLUMNS} FROM task WHERE {condition}"))?;
            statement.query_map(values, read)?.collect()
        };
        rows().map_err(|cause| self.failed(cause))
    }

    /// Rows of two texts.
    pub(super) fn pairs(&self, select: &str, values: impl Params) -> Result<Vec<(String, String)>> {
        let connection = lock(&self.reader);
        let pairs = || -> rusqlite::Result<Vec<(String, String)>> {
            let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            connection.prepare(select)?.query_map(values, pair)?.collect()
        };
        pairs().map_err(|cause| self.failed(cause))
    }

    pub(super) fn change(&self, update: &str, values: impl Params) -> Result<()> {
        self.write(|transaction| transaction.execute(update, values).map(drop))
    }

    /// Performs `work` in one transaction with the write lock.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = lock(&self.writer);
        if identity(&self.state) != self.file {
            let error = Error::new(
                ErrorKind::Io,
                "the record of tasks was removed or replaced, and what is written to it would be \
                 lost: start again",
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

    /// The time of the wall clock, as it is recorded.
    pub(super) fn now(&self) -> i64 {
        millis(self.clock.now())
    }

    /// Tasks that ended before this time are not listed.
    fn oldest(&self) -> i64 {
        self.now().saturating_sub(listed_for())
    }

    /// A wall clock that is set ahead while this process runs removes and fails no task: `oldest`
    /// is bounded by the time that this process measured.
    fn times(&self) -> Times {
        let (opened, since) = self.opened;
        let measured = millis(opened + since.elapsed() + CLOCK_CORRECTION);
        Times { now: self.now(), oldest: self.oldest().min(measured.saturating_sub(listed_for())) }
    }

    fn failed(&self, cause: rusqlite::Error) -> Error {
        failed(cause).at("path", path_in(&self.state).display())
    }
}

/// A task of a server that claimed it, as the log of its progress.
pub struct ClaimedTask {
    /// The database.
    pub task_db: Arc<TaskDb>,
    /// The server.
    pub owner: Arc<Owner>,
    /// The number of the task.
    pub id: i64,
}

impl ProgressLog for ClaimedTask {
    fn advance(&self, percent: u8, bytes: u64) -> Result<()> {
        self.task_db.advance(self.id, &self.owner, percent, bytes)
    }
}

/// All tasks of the last 31 days, the newest first. A database is read if there is one, and not
/// made.
pub fn recent_tasks(state: &Path) -> Result<Vec<TaskRow>> {
    if TaskDb::is_in(state)? {
        return TaskDb::open(state)?.recent(usize::MAX);
    }
    let mut rows = recorded_runs(state)?;
    rows.sort_by_key(|row| Reverse((row.started, row.id)));
    Ok(rows)
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Device and inode of the file that has the name now.
fn identity(state: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path_in(state)).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The times of an insertion.
struct Times {
    now: i64,
    /// Tasks that ended before this time are removed, and those that were requested before it wait
    /// no longer.
    oldest: i64,
}

fn listed_for() -> i64 {
    i64::try_from(LISTED_FOR.as_millis()).unwrap_or(i64::MAX)
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

/// Queues a task, and removes tasks that are not listed any more: the database grows only here.
fn insert(transaction: &Transaction<'_>, task: &NewTask, times: &Times) -> rusqlite::Result<i64> {
    // Scripts keep the reserved id of an image for longer than tasks are listed.
    let forget =
        "DELETE FROM task WHERE ended < ?1 AND (reserved_id IS NULL OR restored_id IS NULL)";
    transaction.execute(forget, [times.oldest])?;
    let forget_snapshots = "DELETE FROM begun_snapshot WHERE task NOT IN \
         (SELECT id FROM task WHERE state IN ('queued', 'running'))";
    transaction.execute(forget_snapshots, [])?;
    let give_up = "UPDATE task SET state = 'failed', reason = ?2, ended = ?3 \
         WHERE state = 'queued' AND started < ?1";
    transaction.execute(give_up, params![times.oldest, UNCLAIMED, times.now])?;
    let insert = "INSERT INTO task (kind, origin, image_id, bucket, object_key, source, target, \
         name, reserved_id, request, scope, size, state, started) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'queued', ?13)";
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
            times.now,
        ],
    )?;
    Ok(transaction.last_insert_rowid())
}

/// The conflict of a task of a server with recorded tasks.
fn conflict(
    connection: &Connection,
    task: &NewTask,
    rules: &Rules,
) -> rusqlite::Result<Option<Conflict>> {
    if task.kind == TaskKind::Store && task.bucket.is_some() {
        let storing = "SELECT id FROM task WHERE kind = 'store' AND image_id = ?1 \
             AND bucket IS NOT NULL AND scope = ?2 \
             AND state IN ('queued', 'running')";
        if first::<i64>(connection, storing, params![task.image_id, task.scope])?.is_some() {
            return Ok(Some(Conflict::Storing));
        }
    }
    if task.kind == TaskKind::Restore {
        let named = "SELECT reserved_id FROM task WHERE kind = 'restore' AND name = ?1 \
             AND scope = ?2 AND reserved_id IS NOT NULL AND state IN ('queued', 'running')";
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
    let under_way = "SELECT COALESCE(SUM(size), 0) FROM task WHERE kind = ?1 AND scope = ?2 \
         AND state IN ('queued', 'running')";
    let bytes = first::<i64>(connection, under_way, params![task.kind.name(), task.scope])?
        .unwrap_or(0)
        .unsigned_abs();
    if bytes > 0 && bytes.saturating_add(task.size) > rules.max_bytes {
        return Ok(Some(Conflict::Bytes(bytes)));
    }
    debug_assert!(task.origin == Origin::Server, "runs of the program do not ask");
    Ok(None)
}
