//! Selection, order and pages of tasks: pure functions on rows.

use std::collections::{HashMap, HashSet};

use super::schema::millis;
use super::{Origin, TaskRow};
use crate::base::fits_pattern;

/// The selected tasks. Empty lists select all. States and buckets have filters, each with some
/// patterns; a task has to fit one pattern of each filter.
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
    /// The position of the next page: hexadecimal digits with `-` between them.
    pub next: Option<String>,
}

/// One task of each image, the newest first: an unfinished task before an ended one, then a task of
/// a server before a run of the program, then the newest. So a client that polls for a task of a
/// server does not see a run of the program. Tasks without an image are left out.
pub fn newest_of_each(rows: Vec<TaskRow>) -> Vec<TaskRow> {
    let mut seen = HashSet::new();
    let mut rows = sorted(rows);
    // The sort is stable: of equal tasks the newest stays first.
    rows.sort_by_key(|row| (row.ended.is_some(), row.task.origin != Origin::Server));
    sorted(
        rows.into_iter()
            .filter(|row| row.task.image_id.clone().is_some_and(|id| seen.insert(id)))
            .collect(),
    )
}

/// At most `limit` selected tasks, the newest first, behind the position `after` of an earlier
/// page. Newer tasks do not move the position. `None` if no page has such a position.
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
        let is_selected = |row: &TaskRow| {
            row.task.image_id.as_ref().is_some_and(|id| filter.image_ids.contains(id))
        };
        newest_of_each(rows.into_iter().filter(is_selected).collect())
    };
    let (mut states, mut buckets) =
        (CachedFilters::new(&filter.states), CachedFilters::new(&filter.buckets));
    let mut rows = rows.into_iter().filter(|row| {
        after.is_none_or(|after| position(row) < after)
            && states.admits(row.state.name())
            && buckets.admits(row.task.bucket.as_deref().unwrap_or_default())
    });
    let found: Vec<TaskRow> = rows.by_ref().take(limit).collect();
    let more = rows.next().is_some();
    let next = found.last().filter(|_| more).map(|row| {
        let (millis, id) = position(row);
        format!("{millis:x}-{id:x}")
    });
    Some(Page { rows: found, next })
}

/// Filters, with a cache of their results: there are few values and many rows.
struct CachedFilters<'a> {
    filters: &'a [Vec<String>],
    values: HashMap<String, bool>,
}

impl<'a> CachedFilters<'a> {
    fn new(filters: &'a [Vec<String>]) -> Self {
        Self { filters, values: HashMap::new() }
    }

    fn admits(&mut self, value: &str) -> bool {
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
    rows.sort_by_key(|row| std::cmp::Reverse(position(row)));
    rows
}

/// The position of a task in the order. It never changes.
fn position(row: &TaskRow) -> (i64, i64) {
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
