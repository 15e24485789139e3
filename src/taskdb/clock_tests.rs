//! The database with a wall clock that is wrong for a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

use super::schema::path_in;
use super::tests::{SCOPE, enqueue, opened, store};
use super::{SignatureUse, TaskDb};
use crate::base::{Clock, TaskState};

/// A clock that shows the given seconds after a fixed time, and a database with this clock.
fn timed(directory: &TempDir) -> (Arc<AtomicU64>, TaskDb) {
    let seconds = Arc::new(AtomicU64::new(0));
    let shown = seconds.clone();
    let clock = Clock::new(move || at(shown.load(Ordering::SeqCst)));
    (seconds, TaskDb::with_clock(directory.path(), clock).expect("a record"))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000 + seconds)
}

const DAY: u64 = 86_400;
/// From the use of a signature to the end of its validity, in seconds.
const VALIDITY: u64 = 901;

fn use_at(task_db: &TaskDb, byte: u8, signed: u64) -> SignatureUse {
    task_db.use_signature(&[byte; 32], at(signed + VALIDITY)).expect("no error")
}

#[test]
fn a_signature_is_not_used_again_after_a_clock_was_two_days_ahead_for_a_moment() {
    let directory = TempDir::new().expect("a directory");
    let (clock, task_db) = timed(&directory);
    assert_eq!(use_at(&task_db, 1, 0), SignatureUse::First);
    clock.store(2 * DAY, Ordering::SeqCst);
    assert_eq!(use_at(&task_db, 2, 2 * DAY), SignatureUse::First);
    clock.store(300, Ordering::SeqCst);
    assert_eq!(use_at(&task_db, 1, 0), SignatureUse::Forgotten, "it is valid again");
    assert_eq!(use_at(&task_db, 3, 300), SignatureUse::First, "a new signature is taken");
    // The same holds for another process.
    let (clock, other) = timed(&directory);
    clock.store(300, Ordering::SeqCst);
    assert_eq!(use_at(&other, 1, 0), SignatureUse::Forgotten);
    // A clock that is behind makes old signatures valid, too.
    clock.store(30 * DAY, Ordering::SeqCst);
    assert_eq!(use_at(&other, 4, 30 * DAY), SignatureUse::First);
    clock.store(2 * DAY, Ordering::SeqCst);
    assert_eq!(use_at(&other, 2, 2 * DAY), SignatureUse::Forgotten);
    clock.store(30 * DAY + 1, Ordering::SeqCst);
    assert_eq!(use_at(&other, 5, 30 * DAY + 1), SignatureUse::First);
}

#[test]
fn the_ranges_of_forgotten_signatures_are_few_and_never_lose_one() {
    let directory = TempDir::new().expect("a directory");
    let (clock, task_db) = timed(&directory);
    for day in 0..100_u8 {
        clock.store(u64::from(day) * DAY, Ordering::SeqCst);
        assert_eq!(use_at(&task_db, day, u64::from(day) * DAY), SignatureUse::First);
    }
    let count = |table: &str| -> i64 {
        Connection::open(path_in(directory.path()))
            .expect("opens")
            .query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0))
            .expect("a count")
    };
    assert_eq!((count("signature"), count("forgotten")), (1, 64));
    for day in 0..99 {
        let used = use_at(&task_db, day, u64::from(day) * DAY);
        assert_eq!(used, SignatureUse::Forgotten, "{day}");
    }
    assert_eq!(use_at(&task_db, 99, 99 * DAY), SignatureUse::Repeated(at(99 * DAY)));
    // Ends of validity that are near each other are one range.
    for number in 1..=20_u8 {
        let signed = 100 * DAY + u64::from(number) * 1800;
        clock.store(signed, Ordering::SeqCst);
        assert_eq!(use_at(&task_db, 100 + number, signed), SignatureUse::First);
    }
    let newest = Connection::open(path_in(directory.path())).expect("opens").query_row(
        "SELECT last - first FROM forgotten ORDER BY first DESC LIMIT 1",
        [],
        |row| row.get(0),
    );
    assert_eq!(newest, Ok(18 * 1_800_000));
}

#[test]
fn a_task_that_is_postponed_while_a_clock_is_six_hours_ahead_is_due_when_it_is_right_again() {
    let directory = TempDir::new().expect("a directory");
    let ((clock, task_db), (_, owner)) = (timed(&directory), opened(&directory));
    let id = enqueue(&task_db, &store("ami-1", "b"));
    let claim = || task_db.claim(&[SCOPE], &owner).expect("no error").map(|row| row.id);
    assert_eq!(claim(), Some(id));
    clock.store(6 * 3600, Ordering::SeqCst);
    task_db.postpone(id, &owner, "the weather").expect("postpones");
    assert_eq!(claim(), None, "it waits");
    clock.store(0, Ordering::SeqCst);
    assert_eq!(claim(), Some(id));
    // A right clock bounds the wait as well.
    for _ in 0..12 {
        task_db.postpone(id, &owner, "the weather").expect("postpones");
        assert_eq!(claim(), None);
        clock.fetch_add(60, Ordering::SeqCst);
        assert_eq!(claim(), Some(id), "the longest wait is a minute");
    }
}

#[test]
fn a_clock_that_is_months_ahead_for_a_moment_removes_and_fails_no_task() {
    let directory = TempDir::new().expect("a directory");
    let ((clock, task_db), (_, owner)) = (timed(&directory), opened(&directory));
    let ended = enqueue(&task_db, &store("ami-1", "b"));
    task_db.claim(&[SCOPE], &owner).expect("no error").expect("a task");
    task_db.complete(ended, &owner).expect("ends");
    let waiting = enqueue(&task_db, &store("ami-2", "b"));
    clock.store(90 * DAY, Ordering::SeqCst);
    let later = enqueue(&task_db, &store("ami-3", "b"));
    clock.store(60, Ordering::SeqCst);
    let mut rows = task_db.recent(10).expect("rows");
    rows.sort_by_key(|row| row.id);
    let states: Vec<_> = rows.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(
        states,
        [(ended, TaskState::Completed), (waiting, TaskState::Queued), (later, TaskState::Queued)]
    );
}
