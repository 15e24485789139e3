//! Which tasks are shown, and in which order: pure functions on rows.

use std::collections::{HashMap, HashSet};

use super::schema::millis;
use super::{Origin, TaskRow};
use crate::base::fits_pattern;

/// What is asked for. Empty lists ask for all. Of states and buckets there are filters, each of
/// some patterns, of which a task has to fit one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `InProgress`, `Completed`, `Failed`.
    pub states: Vec<Vec<String>>,
    /// Buckets.
    pub buckets: Vec<Vec<String>>,
    /// Images; of each only the newest task.
    pub image_ids: Vec<String>,
}

/// Some of the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The newest first.
    pub rows: Vec<TaskRow>,
    /// Where to go on, if there are more: hex digits with `-` between them.
    pub next: Option<String>,
}

/// One task of each image, the newest first: one that is not over rather than one that is, then one
/// of a server rather than a run of the program, then the newest. So whoever waits for what a
/// server does is not told of what somebody tried by hand meanwhile. What has no image is left out.
pub fn newest_of_each(rows: Vec<TaskRow>) -> Vec<TaskRow> {
    let mut seen = HashSet::new();
    let mut rows = sorted(rows);
    // Stable: the newest of those that are alike stays first.
    rows.sort_by_key(|row| (row.ended.is_some(), row.task.origin != Origin::Server));
    sorted(
        rows.into_iter()
            .filter(|row| row.task.image_id.clone().is_some_and(|id| seen.insert(id)))
            .collect(),
    )
}

/// At most `limit` of those tasks that are asked for, the newest first, from behind the place
/// `after` which an earlier page gave. Tasks that came since then do not move it. `None` if no page
/// ever gave such a place.
pub fn page(
    rows: Vec<TaskRow>,
    filter: &Filter,
    limit: usize,
    after: Option<&str>,
) -> Option<Page> {
    let after = match after {
        Some(text) => Some(parse(text)?),
        None => None,
    };
    let rows = if filter.image_ids.is_empty() {
        sorted(rows)
    } else {
        let asked = |row: &TaskRow| {
            row.task.image_id.as_ref().is_some_and(|id| filter.image_ids.contains(id))
        };
        newest_of_each(rows.into_iter().filter(asked).collect())
    };
    let (mut states, mut buckets) = (Known::new(&filter.states), Known::new(&filter.buckets));
    let mut rows = rows.into_iter().filter(|row| {
        after.is_none_or(|after| place(row) < after)
            && states.let_through(row.state.name())
            && buckets.let_through(row.task.bucket.as_deref().unwrap_or_default())
    });
    let found: Vec<TaskRow> = rows.by_ref().take(limit).collect();
    let more = rows.next().is_some();
    let next = found.last().filter(|_| more).map(|row| {
        let (millis, id) = place(row);
        format!("{millis:x}-{id:x}")
    });
    Some(Page { rows: found, next })
}

/// Filters, and what they say of values that were looked at: there are few of them, and many rows.
struct Known<'a> {
    filters: &'a [Vec<String>],
    values: HashMap<String, bool>,
}

impl<'a> Known<'a> {
    fn new(filters: &'a [Vec<String>]) -> Self {
        Self { filters, values: HashMap::new() }
    }

    fn let_through(&mut self, value: &str) -> bool {
        if let Some(known) = self.values.get(value) {
            return *known;
        }
        let fits = self
            .filters
            .iter()
            .all(|patterns| patterns.iter().any(|pattern| fits_pattern(pattern, value)));
        self.values.insert(value.to_owned(), fits);
        fits
    }
}

fn sorted(mut rows: Vec<TaskRow>) -> Vec<TaskRow> {
    rows.sort_by_key(|row| std::cmp::Reverse(place(row)));
    rows
}

/// By what tasks are ordered. It never changes.
fn place(row: &TaskRow) -> (i64, i64) {
    (millis(row.started), row.id)
}

fn parse(text: &str) -> Option<(i64, i64)> {
    let (millis, id) = text.split_once('-')?;
    let number = |text: &str| {
        let plain = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if plain { i64::from_str_radix(text, 16).ok() } else { None }
    };
    Some((number(millis)?, number(id)?))
}
