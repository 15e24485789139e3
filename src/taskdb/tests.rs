//! The database with several processes, and the tasks that they leave.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tempfile::TempDir;

use super::schema::{millis, path_in};
use super::*;
use crate::base::{Clock, ErrorKind, TaskKind, TaskState};

const RULES: Rules = Rules { max_queued: 100, max_bytes: 1 << 40 };
pub(super) const SCOPE: &str = "here";

pub(super) fn store(image: &str, bucket: &str) -> NewTask {
    NewTask {
        image_id: Some(image.into()),
        bucket: Some(bucket.into()),
        object_key: Some(format!("{image}.bin")),
        request: Some("{}".into()),
        scope: Some(SCOPE.into()),
        size: 1 << 30,
        ..NewTask::new(TaskKind::Store, Origin::Server, image, format!("s3://{bucket}/{image}.bin"))
    }
}

fn restore(name: &str, reserved: &str) -> NewTask {
    NewTask {
        name: Some(name.into()),
        reserved_id: Some(reserved.into()),
        scope: Some(SCOPE.into()),
        size: 1 << 30,
        ..NewTask::new(TaskKind::Restore, Origin::Server, "s3://b/a.bin", "ec2")
    }
}

fn command(image: &str) -> NewTask {
    NewTask { origin: Origin::Command, scope: None, request: None, ..store(image, "b") }
}

pub(super) fn opened(directory: &TempDir) -> (TaskDb, Owner) {
    (
        TaskDb::open(directory.path()).expect("a record"),
        Owner::register(directory.path()).expect("an owner"),
    )
}

pub(super) fn enqueue(task_db: &TaskDb, task: &NewTask) -> i64 {
    task_db.enqueue(task, &RULES).expect("no error").expect("no conflict")
}

fn change(directory: &Path, statement: &str) {
    Connection::open(path_in(directory)).expect("opens").execute_batch(statement).expect("changes");
}

#[test]
fn a_task_is_claimed_once_and_ends_as_its_owner_says() {
    let directory = TempDir::new().expect("a directory");
    let ((one, first), (other, second)) = (opened(&directory), opened(&directory));
    let (a, b) = (enqueue(&one, &store("ami-1", "b")), enqueue(&other, &store("ami-2", "b")));
    let claimed = one.claim(&[SCOPE], &first).expect("no error").expect("a task");
    assert_eq!(
        (claimed.id, claimed.state, claimed.task.image_id.as_deref()),
        (a, TaskState::InProgress, Some("ami-1"))
    );
    assert_eq!(
        other.claim(&[SCOPE], &second).expect("no error").expect("a task").id,
        b,
        "the oldest first"
    );
    assert_eq!(other.claim(&[SCOPE], &second).expect("no error"), None);
    assert_eq!(one.unfinished(&ScopeFilter::All).expect("counts"), (0, 2));
    // A process does not end the task of another owner.
    one.complete(b, &first).expect("no error");
    one.advance(a, &first, 100, 77).expect("notes");
    let rows = other.stores(&ScopeFilter::Scope(SCOPE), &["ami-1".to_owned()]).expect("rows");
    assert_eq!((rows[0].percent, rows[0].bytes, rows[0].state.name()), (99, 77, "InProgress"));
    one.complete(a, &first).expect("ends");
    other.fail(b, &second, "no more room").expect("ends");
    let rows = one.recent(10).expect("rows");
    let ended: Vec<_> = rows
        .iter()
        .map(|row| (row.id, row.state.name(), row.percent, row.reason.as_deref()))
        .collect();
    assert_eq!(ended, [(b, "Failed", 0, Some("no more room")), (a, "Completed", 100, None)]);
    assert!(rows.iter().all(|row| row.ended.is_some() && row.owner.is_none()));
}

#[test]
fn many_who_claim_at_once_get_each_task_once() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _) = opened(&directory);
    let enqueued: Vec<i64> =
        (0..20).map(|number| enqueue(&task_db, &store(&format!("ami-{number}"), "b"))).collect();
    let mut claimed: Vec<i64> = std::thread::scope(|scope| {
        let claim = || {
            let (task_db, owner) = opened(&directory);
            let mut mine = Vec::new();
            while let Some(row) = task_db.claim(&[SCOPE], &owner).expect("no error") {
                task_db.complete(row.id, &owner).expect("ends");
                mine.push(row.id);
            }
            mine
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    claimed.sort_unstable();
    assert_eq!(claimed, enqueued);
}

#[test]
fn work_of_an_owner_that_is_gone_waits_again_or_has_failed() {
    let directory = TempDir::new().expect("a directory");
    // The clock stands still, so that the wait of the postponed task does not end.
    let now = SystemTime::now();
    let clock = Clock::new(move || now);
    let task_db = TaskDb::with_clock(directory.path(), clock).expect("a record");
    let ((_, gone), (_, next)) = (opened(&directory), opened(&directory));
    let enqueued = enqueue(&task_db, &store("ami-1", "b"));
    assert_eq!(task_db.claim(&[SCOPE], &gone).expect("no error").expect("a task").id, enqueued);
    let run = Run::begin(directory.path(), &command("ami-2")).expect("begins");
    assert_eq!(task_db.claim(&[SCOPE], &next).expect("no error"), None, "its owner is there");
    assert_eq!(task_db.unfinished(&ScopeFilter::All).expect("counts"), (0, 2));
    drop((gone, run));
    let rows = task_db.recent(10).expect("rows");
    assert_eq!(rows[0].state, TaskState::Failed);
    assert!(rows[0].reason.as_ref().is_some_and(|reason| reason.contains("without a word")));
    assert_eq!((rows[1].id, rows[1].state.name()), (enqueued, "InProgress"));
    assert_eq!(task_db.claim(&[SCOPE], &next).expect("no error").expect("a task").id, enqueued);
    task_db.postpone(enqueued, &next, "the weather").expect("releases");
    assert_eq!(task_db.unfinished(&ScopeFilter::All).expect("counts"), (1, 0));
    assert_eq!(task_db.recent(10).expect("rows")[1].reason.as_deref(), Some("the weather"));
    assert_eq!(
        task_db.claim(&["elsewhere"], &next).expect("no error"),
        None,
        "it is for another account"
    );
    assert_eq!(task_db.claim(&[SCOPE], &next).expect("no error"), None, "it rests");
    task_db.rouse(SCOPE).expect("wakes it");
    assert_eq!(task_db.claim(&[SCOPE], &next).expect("no error").expect("a task").reason, None);
}

#[test]
fn files_of_owners_that_are_gone_are_removed_by_the_next() {
    let directory = TempDir::new().expect("a directory");
    let living = Owner::register(directory.path()).expect("an owner");
    let left = directory.path().join("runners/0123456789abcdef.lock");
    std::fs::write(&left, b"").expect("writes");
    let (one, other) = (
        Owner::register(directory.path()).expect("an owner"),
        Owner::register(directory.path()).expect("an owner"),
    );
    assert!(!left.exists() && one.name() != other.name());
    assert!(
        owner::is_alive(directory.path(), living.name())
            && !owner::is_alive(directory.path(), "0123456789abcdef")
    );
}

#[test]
fn of_one_image_one_store_at_a_time_is_taken_on() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _owner) = opened(&directory);
    let run = Run::begin(directory.path(), &command("ami-1")).expect("begins");
    assert_eq!(
        task_db.check(&store("ami-1", "other"), &RULES).expect("no error"),
        Some(Conflict::Storing)
    );
    assert_eq!(
        task_db.enqueue(&store("ami-1", "other"), &RULES).expect("no error"),
        Err(Conflict::Storing)
    );
    run.end(None).expect("ends");
    enqueue(&task_db, &store("ami-1", "other"));
    assert_eq!(
        task_db.check(&store("ami-1", "b"), &RULES).expect("no error"),
        Some(Conflict::Storing)
    );
    enqueue(&task_db, &restore("name", "ami-r1"));
    let taken = task_db.enqueue(&restore("name", "ami-r2"), &RULES).expect("no error");
    assert_eq!(taken, Err(Conflict::Name("ami-r1".into())));
}

#[test]
fn limits_are_those_of_what_waits_and_of_bytes_under_way() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, owner) = opened(&directory);
    let few = Rules { max_queued: 2, max_bytes: 1 };
    enqueue(&task_db, &store("ami-1", "b"));
    assert_eq!(
        task_db.check(&store("ami-2", "b"), &few).expect("no error"),
        Some(Conflict::Bytes(1 << 30))
    );
    assert_eq!(
        task_db.check(&restore("n", "ami-r"), &few).expect("no error"),
        None,
        "the first one may be larger"
    );
    enqueue(&task_db, &store("ami-2", "b"));
    assert_eq!(
        task_db.check(&store("ami-3", "b"), &few).expect("no error"),
        Some(Conflict::Queued(2))
    );
    task_db.claim(&[SCOPE], &owner).expect("no error").expect("a task");
    assert_eq!(
        task_db
            .check(&store("ami-3", "b"), &Rules { max_bytes: 1 << 40, ..few })
            .expect("no error"),
        None
    );
}

#[test]
fn old_tasks_are_removed_and_reserved_ids_stay() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, owner) = opened(&directory);
    for task in [restore("one", "ami-r1"), restore("two", "ami-r2"), store("ami-1", "b")] {
        enqueue(&task_db, &task);
        let id = task_db.claim(&[SCOPE], &owner).expect("no error").expect("a task").id;
        if task.name.as_deref() == Some("one") {
            task_db.note_image(id, &owner, "ami-real").expect("notes");
        }
        task_db.complete(id, &owner).expect("ends");
    }
    let waiting = enqueue(&task_db, &store("ami-2", "b"));
    let old = millis(SystemTime::now() - LISTED_FOR - Duration::from_secs(1));
    change(
        directory.path(),
        &format!("UPDATE task SET started = {old}, ended = {old} WHERE ended IS NOT NULL"),
    );
    assert_eq!(
        task_db.recent(10).expect("rows").iter().map(|row| row.id).collect::<Vec<_>>(),
        [waiting]
    );
    // A server that is never stopped forgets, too.
    enqueue(&task_db, &store("ami-3", "b"));
    let row = task_db
        .reserved(&ScopeFilter::Scope(SCOPE), "ami-r1")
        .expect("no error")
        .expect("it stays");
    assert_eq!(row.restored_id.as_deref(), Some("ami-real"));
    assert_eq!(task_db.reserved(&ScopeFilter::Scope(SCOPE), "ami-r2").expect("no error"), None);
    assert_eq!(task_db.recent(10).expect("rows").len(), 2);
}

#[test]
fn a_scope_has_tasks_and_limits_of_its_own() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _owner) = opened(&directory);
    let theirs = |task: NewTask| NewTask { scope: Some("else where".into()), ..task };
    let rules = Rules { max_queued: 1, max_bytes: 1 << 30 };
    let taken = |task: &NewTask| task_db.enqueue(task, &rules).expect("no error");
    taken(&theirs(store("ami-1", "b"))).expect("taken on");
    taken(&store("ami-1", "b")).expect("others store an image of this id as well");
    assert_eq!(taken(&store("ami-2", "b")), Err(Conflict::Queued(1)));
    assert_eq!(task_db.stores(&ScopeFilter::Scope(SCOPE), &[]).expect("rows").len(), 1);
    enqueue(&task_db, &theirs(restore("web", "ami-r1")));
    assert_eq!(task_db.reserved(&ScopeFilter::Scope(SCOPE), "ami-r1").expect("no error"), None);
    assert!(
        task_db.reserved(&ScopeFilter::Endpoints("where"), "ami-r1").expect("no error").is_some(),
        "of whatever account"
    );
    assert_eq!(task_db.stores(&ScopeFilter::Endpoints("where"), &[]).expect("rows").len(), 1);
    // A task that no server claims does not wait for ever.
    let old = millis(SystemTime::now() - LISTED_FOR - Duration::from_secs(1));
    change(
        directory.path(),
        &format!("UPDATE task SET started = {old} WHERE scope = 'else where'"),
    );
    enqueue(&task_db, &store("ami-3", "b"));
    let given_up: Vec<TaskRow> = task_db
        .recent(10)
        .expect("rows")
        .into_iter()
        .filter(|row| row.state == TaskState::Failed)
        .collect();
    assert!(
        given_up.len() == 2
            && given_up
                .iter()
                .all(|row| row.reason.as_deref().is_some_and(|why| why.contains("31 days")))
    );
}

#[test]
fn a_signature_is_used_once_on_all_servers_and_forgotten_after_its_validity() {
    let directory = TempDir::new().expect("a directory");
    let ((one, _), (other, _)) = (opened(&directory), opened(&directory));
    let (soon, past) =
        (SystemTime::now() + Duration::from_secs(60), SystemTime::now() - Duration::from_secs(700));
    let uses = |task_db: &TaskDb, byte: u8, until| {
        task_db.use_signature(&[byte; 32], until).expect("no error") == SignatureUse::First
    };
    assert!(uses(&one, 1, soon) && !uses(&other, 1, soon) && uses(&other, 2, soon));
    let used = other.use_signature(&[1; 32], soon).expect("no error");
    let SignatureUse::Repeated(before) = used else { panic!("{used:?}") };
    assert!(before.elapsed().expect("a time in the past") < Duration::from_secs(60));
    other.release_signature(&[1; 32]).expect("no error");
    assert!(uses(&one, 1, soon) && uses(&one, 3, past) && uses(&one, 4, soon));
    drop((one, other));
    let (again, _) = opened(&directory);
    assert!(!uses(&again, 1, soon), "a later process knows of it");
    let count = Connection::open(path_in(directory.path())).expect("opens").query_row(
        "SELECT COUNT(*) FROM signature",
        [],
        |row| row.get(0),
    );
    assert_eq!(count, Ok(3));
}

#[test]
fn tasks_of_another_scope_are_neither_shown_nor_counted() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, owner) = opened(&directory);
    let ours = enqueue(&task_db, &store("ami-1", "b"));
    let theirs = NewTask { scope: Some("their own".into()), ..store("ami-2", "b") };
    enqueue(&task_db, &theirs);
    task_db.claim(&["their own"], &owner).expect("no error").expect("a task");
    let _running = Run::begin(directory.path(), &command("ami-3")).expect("begins");
    let run = recorded_runs(directory.path()).expect("runs")[0].id;
    let shown = |of: ScopeFilter<'_>| {
        let rows = task_db.recent_of(&of, 10).expect("rows");
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        (ids, task_db.unfinished(&of).expect("counts"))
    };
    // No account is known to own a run of the program.
    assert_eq!(shown(ScopeFilter::Scope(SCOPE)), (vec![ours], (1, 0)));
    assert_eq!(shown(ScopeFilter::Scopes(&[])), (vec![], (0, 0)), "of an unknown account");
    let (all, counts) = shown(ScopeFilter::All);
    assert!(all.contains(&run) && counts == (1, 2), "{all:?} {counts:?}");
    assert!(task_db.has_tasks_at("own").expect("no error"), "of any account");
    assert!(!task_db.has_tasks_at("elsewhere").expect("no error"));
}

#[test]
fn nothing_is_written_to_a_file_that_is_gone() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _) = opened(&directory);
    enqueue(&task_db, &store("ami-1", "b"));
    std::fs::rename(path_in(directory.path()), directory.path().join("away")).expect("is moved");
    for _ in 0..2 {
        let error = task_db.enqueue(&store("ami-2", "b"), &RULES).expect_err("it would be lost");
        assert!(
            error.kind() == ErrorKind::Io && error.message().contains("removed or replaced"),
            "{error:?}"
        );
        // Now there is another one.
        Connection::open(path_in(directory.path()))
            .expect("opens")
            .execute_batch("CREATE TABLE IF NOT EXISTS task (id)")
            .expect("makes it");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_connection_does_not_release_the_locks_of_the_first() {
    use std::os::unix::fs::MetadataExt;
    let directory = TempDir::new().expect("a directory");
    let (task_db, _owner) = opened(&directory);
    enqueue(&task_db, &store("ami-1", "b"));
    // A read that is in progress holds a lock.
    let reader = Connection::open(path_in(directory.path())).expect("opens");
    reader.execute_batch("BEGIN; SELECT id FROM task").expect("reads");
    let (other, _owner) = opened(&directory);
    other.recent(1).expect("rows");
    drop((other, task_db));
    let number =
        format!(":{} ", std::fs::metadata(path_in(directory.path())).expect("there").ino());
    let locks = std::fs::read_to_string("/proc/locks").expect("the locks of the system");
    assert!(
        locks
            .lines()
            .any(|lock| lock.contains(&number) && lock.contains(&std::process::id().to_string())),
        "{locks}"
    );
}

#[test]
fn other_users_may_not_read_the_file() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _) = opened(&directory);
    enqueue(&task_db, &store("ami-1", "b"));
    for name in ["tasks.sqlite", "tasks.sqlite-journal"] {
        let mode =
            std::fs::metadata(directory.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn no_file_is_mapped_which_would_end_the_process_on_a_full_disk() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, owner) = opened(&directory);
    enqueue(&task_db, &store("ami-1", "b"));
    task_db.claim(&[SCOPE], &owner).expect("no error").expect("a task");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the maps of the process");
    let path = path_in(directory.path()).display().to_string();
    let mapped: Vec<&str> = maps.lines().filter(|line| line.contains(&path)).collect();
    assert!(mapped.is_empty(), "{mapped:?}");
    assert!(!directory.path().join("tasks.sqlite-shm").exists());
}

#[test]
fn a_database_with_a_log_of_writes_is_converted_with_its_content() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _) = opened(&directory);
    let before = enqueue(&task_db, &store("ami-1", "b"));
    drop(task_db);
    let mode = |connection: &Connection| -> String {
        connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode")
    };
    // The writes of a process that was killed are in the log alone.
    let earlier = Connection::open(path_in(directory.path())).expect("opens");
    earlier.execute_batch("PRAGMA journal_mode = WAL").expect("changes");
    earlier.execute_batch("UPDATE task SET source = 'from the log'").expect("changes");
    assert_eq!(mode(&earlier), "wal");
    let copy = TempDir::new().expect("a directory");
    for name in ["tasks.sqlite", "tasks.sqlite-wal"] {
        std::fs::copy(directory.path().join(name), copy.path().join(name)).expect("copies");
    }
    let (converted, _) = opened(&copy);
    let row = converted.recent(1).expect("rows").remove(0);
    assert_eq!((row.id, row.task.source.as_str()), (before, "from the log"));
    enqueue(&converted, &store("ami-2", "b"));
    let other = Connection::open(path_in(copy.path())).expect("opens");
    assert_eq!(mode(&other), "delete", "another connection finds no log");
}

#[test]
fn a_newer_or_damaged_file_is_refused_and_named() {
    let directory = TempDir::new().expect("a directory");
    drop(opened(&directory));
    let path = path_in(directory.path()).display().to_string();
    change(directory.path(), "PRAGMA user_version = 4");
    let error = TaskDb::open(directory.path()).err().expect("newer");
    assert_eq!(
        (error.kind(), error.fact("path"), error.fact("version")),
        (ErrorKind::Unsupported, Some(path.as_str()), Some("4"))
    );
    for content in
        [b"this is no database, and not a short one either: ".repeat(100), vec![0xFF; 50_000]]
    {
        std::fs::write(&path, content).expect("writes");
        let error = TaskDb::open(directory.path()).err().expect("damaged");
        assert_eq!(
            (error.kind(), error.fact("path")),
            (ErrorKind::Corrupt, Some(path.as_str())),
            "{error:?}"
        );
        assert!(error.message().contains("move this file away"), "{error:?}");
    }
}

#[test]
fn a_file_that_was_damaged_inside_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let (task_db, _) = opened(&directory);
    for number in 0..200 {
        enqueue(&task_db, &NewTask { size: 0, ..store(&format!("ami-{number}"), "b") });
        if number == 90 {
            task_db
                .claim(&[SCOPE], &Owner::register(directory.path()).expect("an owner"))
                .expect("no error");
        }
        change(
            directory.path(),
            "UPDATE task SET state = 'failed', ended = 9999999999999 WHERE state = 'queued'",
        );
    }
    drop(task_db);
    let path = path_in(directory.path());
    let mut bytes = std::fs::read(&path).expect("reads");
    for at in (4096 * 3..bytes.len()).step_by(64) {
        bytes[at] ^= 0x55;
    }
    std::fs::write(&path, bytes).expect("writes");
    let error = TaskDb::open(directory.path()).err().expect("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

fn row(id: i64, image: &str, bucket: &str, state: TaskState) -> TaskRow {
    TaskRow {
        id,
        task: store(image, bucket),
        restored_id: None,
        state,
        percent: 0,
        bytes: 0,
        started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + id as u64 / 2),
        ended: None,
        reason: None,
        owner: None,
    }
}

fn ids(page: &Page) -> Vec<i64> {
    page.rows.iter().map(|row| row.id).collect()
}

#[test]
fn pages_come_newest_first_and_stay_where_they_are_while_tasks_come() {
    let mut rows: Vec<TaskRow> =
        (1..=5).map(|id| row(id, &format!("ami-{id}"), "b", TaskState::Completed)).collect();
    let first = page(rows.clone(), &Filter::default(), 2, None).expect("a page");
    assert_eq!(ids(&first), [5, 4]);
    let next = first.next.expect("more");
    assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{next}");
    rows.extend((6..=9).map(|id| row(id, &format!("ami-{id}"), "b", TaskState::InProgress)));
    let second = page(rows.clone(), &Filter::default(), 2, Some(&next)).expect("a page");
    assert_eq!(ids(&second), [3, 2]);
    let third = page(rows.clone(), &Filter::default(), 2, second.next.as_deref()).expect("a page");
    assert_eq!((ids(&third), third.next), (vec![1], None));
    for bad in ["", "x", "1", "1-", "-1-1", "+1-1", "1-1-1", "G-1"] {
        assert_eq!(page(rows.clone(), &Filter::default(), 2, Some(bad)), None, "{bad}");
    }
}

#[test]
fn filters_select_and_of_a_named_image_only_the_newest_task_is_listed() {
    let rows = vec![
        row(1, "ami-1", "b", TaskState::Completed),
        row(2, "ami-1", "c", TaskState::Failed),
        row(3, "ami-2", "b", TaskState::Queued),
        row(4, "ami-3", "b", TaskState::InProgress),
    ];
    let found = |filter: Filter| ids(&page(rows.clone(), &filter, 10, None).expect("a page"));
    assert_eq!(
        found(Filter { states: vec![vec!["InProgress".into()]], ..Filter::default() }),
        [4, 3]
    );
    assert_eq!(
        found(Filter {
            states: vec![vec!["Completed".into(), "Failed".into()]],
            buckets: vec![vec!["b".into()]],
            ..Filter::default()
        }),
        [1]
    );
    assert_eq!(
        found(Filter {
            states: vec![vec!["*ed".into()]],
            buckets: vec![vec!["?".into()]],
            ..Filter::default()
        }),
        [2, 1]
    );
    assert_eq!(
        found(Filter { states: vec![vec!["completed".into()]], ..Filter::default() }),
        [0; 0]
    );
    let both = vec![vec!["b*".into()], vec!["b".into(), "c".into()]];
    assert_eq!(
        found(Filter { buckets: both, ..Filter::default() }),
        [4, 3, 1],
        "each filter is a condition"
    );
    assert_eq!(
        found(Filter { image_ids: vec!["ami-1".into(), "ami-3".into()], ..Filter::default() }),
        [4, 2]
    );
    assert_eq!(newest_of_each(rows).iter().map(|row| row.id).collect::<Vec<_>>(), [4, 3, 2]);
}
