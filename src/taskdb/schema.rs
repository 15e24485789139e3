//! The database file: opening, tables, and rows.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};

use super::{NewTask, Origin, TaskRow};
use crate::base::{Error, ErrorKind, Result, TaskKind, TaskState};
use crate::localfs::make_private_directory;

/// The schema version that is written, and the only one that is read.
const VERSION: i64 = 3;
/// The longest wait for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const TABLES: &str = "
CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    origin TEXT NOT NULL,
    image_id TEXT,
    bucket TEXT,
    object_key TEXT,
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    name TEXT,
    reserved_id TEXT UNIQUE,
    request TEXT,
    scope TEXT,
    size INTEGER NOT NULL,
    restored_id TEXT,
    state TEXT NOT NULL,
    percent INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL,
    ended INTEGER,
    reason TEXT,
    owner TEXT,
    -- How often it was left because something has to come first, and when it is looked at again.
    left_for INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX task_image ON task (image_id);
CREATE INDEX task_state ON task (state);
CREATE INDEX task_ended ON task (ended);

CREATE TABLE signature (
    signature BLOB PRIMARY KEY,
    used INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX signature_until ON signature (until);
PRAGMA user_version = 3;
";

/// Ranges of time in which the validity of forgotten signatures ended, and the snapshots that
/// restores have begun. Versions that do not know these tables ignore them, so they have no version
/// of their own.
const LATER_TABLES: &str = "
CREATE TABLE IF NOT EXISTS forgotten (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS begun_snapshot (
    task INTEGER NOT NULL,
    archived TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    PRIMARY KEY (task, archived)
) STRICT, WITHOUT ROWID;
";

/// Settings with which SQLite maps no file: where the disk is full, the system ends a process that
/// touches a mapped page without a block. A log of writes (WAL) needs a mapped file that its
/// processes share, so changes go through a rollback journal. A file with such a log, of earlier
/// versions, is converted; it is read with the exclusive lock, which needs no map.
const UNMAPPED: &str = "
PRAGMA mmap_size = 0;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = TRUNCATE;
PRAGMA locking_mode = NORMAL;
PRAGMA synchronous = FULL;
";

/// The columns that [`read`] reads, in its order.
pub(super) const COLUMNS: &str = "id, kind, origin, image_id, bucket, object_key, source, target, \
     name, reserved_id, request, scope, size, restored_id, state, \
     percent, bytes, started, ended, reason, owner";

/// The name of the file in the state directory.
pub(super) fn path_in(state: &Path) -> PathBuf {
    state.join("tasks.sqlite")
}

/// Opens the file, or makes it.
pub(super) fn open(state: &Path) -> Result<Connection> {
    let path = path_in(state);
    let located = |error: Error| error.at("path", path.display());
    make_private_directory(state).map_err(|cause| {
        Error::io("cannot make the state directory", cause).at("state_directory", state.display())
    })?;
    // SQLite gives this mode to the files beside it. An existing file is not opened here: closing
    // it would release all POSIX locks of this process on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(located(Error::io("cannot make the record of tasks", cause)));
        }
        _ => {}
    }
    prepare(&path).map_err(located)
}

fn prepare(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.execute_batch(UNMAPPED).map_err(failed)?;
    let version = user_version(&connection)?;
    if version > VERSION {
        return Err(newer(version));
    }
    // A transaction that changes nothing would wait for the readers, too.
    if version != VERSION || !has_later_tables(&connection)? {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        match user_version(&transaction)? {
            0 => transaction.execute_batch(TABLES).map_err(failed)?,
            VERSION => {}
            version if version < VERSION => return Err(older(version)),
            version => return Err(newer(version)),
        }
        transaction.execute_batch(LATER_TABLES).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found != "ok" {
        return Err(damaged().because(found));
    }
    Ok(connection)
}

fn user_version(connection: &Connection) -> Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)
}

/// Whether the file has all of [`LATER_TABLES`].
fn has_later_tables(connection: &Connection) -> Result<bool> {
    let found: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema
             WHERE type = 'table' AND name IN ('forgotten', 'begun_snapshot')",
            [],
            |row| row.get(0),
        )
        .map_err(failed)?;
    Ok(found == 2)
}

fn newer(version: i64) -> Error {
    Error::unsupported(
        "the record of tasks was written by a newer amistore: use that one, or another state \
         directory",
    )
    .code_as(crate::base::ErrorCode::NewerFormat)
    .at("version", version)
    .at("known", VERSION)
}

fn older(version: i64) -> Error {
    Error::unsupported(
        "the record of tasks was written by an amistore before the first release: move this file \
         away, and a new one is made",
    )
    .at("version", version)
    .at("known", VERSION)
}

fn damaged() -> Error {
    Error::corrupt(
        "the record of tasks is damaged: move this file away, with those beside it whose names \
         begin alike, and a new one is made",
    )
}

/// An error of SQLite as [`Error`].
pub(super) fn failed(cause: rusqlite::Error) -> Error {
    let code = match &cause {
        rusqlite::Error::SqliteFailure(error, _) => error.code,
        // A value that this program does not write.
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => {
            ErrorCode::DatabaseCorrupt
        }
        _ => ErrorCode::Unknown,
    };
    let error = match code {
        ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt => damaged(),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::new(ErrorKind::Io, "the record of tasks is kept locked by another process")
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
            Error::new(ErrorKind::Denied, "cannot write the record of tasks")
        }
        ErrorCode::DiskFull => {
            Error::new(ErrorKind::Io, "there is no room for the record of tasks")
        }
        _ => Error::new(ErrorKind::Io, "cannot use the record of tasks"),
    };
    error.because(cause)
}

/// A time in milliseconds since 1970, as it is recorded.
pub(super) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A row of [`COLUMNS`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    let number = |index: usize| -> rusqlite::Result<u64> {
        Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
    };
    Ok(TaskRow {
        id: row.get(0)?,
        task: NewTask {
            kind: word(row, 1, &TaskKind::ALL, TaskKind::name)?,
            origin: word(row, 2, &Origin::ALL, Origin::name)?,
            image_id: row.get(3)?,
            bucket: row.get(4)?,
            object_key: row.get(5)?,
            source: row.get(6)?,
            target: row.get(7)?,
            name: row.get(8)?,
            reserved_id: row.get(9)?,
            request: row.get(10)?,
            scope: row.get(11)?,
            size: number(12)?,
        },
        restored_id: row.get(13)?,
        state: word(row, 14, &TaskState::ALL, state_word)?,
        percent: number(15)?.min(100) as u8,
        bytes: number(16)?,
        started: time(row.get(17)?),
        ended: row.get::<_, Option<i64>>(18)?.map(time),
        reason: row.get(19)?,
        owner: row.get(20)?,
    })
}

/// The word for a state in the file.
pub(super) fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::InProgress => "running",
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
    }
}

fn word<T: Copy>(
    row: &Row<'_>,
    index: usize,
    known: &[T],
    name: fn(T) -> &'static str,
) -> rusqlite::Result<T> {
    let text: String = row.get(index)?;
    known.iter().copied().find(|value| name(*value) == text).ok_or_else(|| {
        let unknown = format!("{text:?} is not known here");
        rusqlite::Error::FromSqlConversionFailure(
            index,
            rusqlite::types::Type::Text,
            unknown.into(),
        )
    })
}
