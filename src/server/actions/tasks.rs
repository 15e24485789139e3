//! DescribeStoreImageTasks.

use std::collections::BTreeSet;

use super::super::image_ids::ImageIds;
use super::super::times::milliseconds;
use super::super::{Refusal, Service, StorePage, StoreQuery};
use super::arguments::{Arguments, shown};
use super::image_id;
use crate::aws::ec2_query::Xml;
use crate::base::hex;
use crate::codec::sha256;

/// The most images of one request, as EC2 has it.
const MAX_IMAGES: usize = 20;
/// The largest MaxResults, as EC2 has it.
const MAX_RESULTS: usize = 200;
/// Tasks of one page without MaxResults: large, because some clients read only the first page.
const DEFAULT_RESULTS: usize = 1000;
/// The most values of filters of one request, as EC2 has it.
const MAX_FILTER_VALUES: usize = 200;
/// The longest pagination token.
const MAX_TOKEN_BYTES: usize = 512;

pub(super) fn answer(
    mut arguments: Arguments,
    dry_run: bool,
    service: &dyn Service,
) -> Result<Xml, Refusal> {
    let ids = arguments.list("ImageId")?;
    let filters = arguments.items("Filter")?;
    let limit = arguments.take("MaxResults");
    let token = arguments.take("NextToken");
    if !ids.is_empty() && limit.is_some() {
        let message = "The parameter ImageIds cannot be used with the parameter MaxResults";
        return Err(Refusal::client("InvalidParameterCombination", message));
    }
    if ids.len() > MAX_IMAGES {
        return Err(Refusal::value(format!(
            "The parameter ImageIds holds {} ids: at most {MAX_IMAGES} are allowed",
            ids.len()
        )));
    }
    let mut query = StoreQuery {
        limit: limit.as_deref().map_or(Ok(DEFAULT_RESULTS), results)?,
        ..StoreQuery::default()
    };
    read_filters(filters, &mut query)?;
    arguments.finish()?;
    let mut image_ids = ImageIds::new(service);
    for id in &ids {
        let id = image_id(id, &mut image_ids)?;
        if !query.image_ids.contains(&id) {
            query.image_ids.push(id);
        }
    }
    if !ids.is_empty() {
        (query.states, query.buckets) = Default::default();
    }
    let binding = binding(&query);
    query.after =
        token.filter(|token| !token.is_empty()).map(|token| after(&token, &binding)).transpose()?;
    if dry_run {
        return Err(Refusal::dry_run());
    }
    let page = service.store_tasks(&query)?;
    Ok(written(page, &image_ids, &binding))
}

fn results(text: &str) -> Result<usize, Refusal> {
    let number = text.parse().ok().filter(|number| {
        (1..=MAX_RESULTS).contains(number) && text.bytes().all(|byte| byte.is_ascii_digit())
    });
    number.ok_or_else(|| {
        Refusal::value(format!(
            "Value ( {} ) for parameter maxResults is invalid. \
             Expecting a value between 1 and {MAX_RESULTS}",
            shown(text)
        ))
    })
}

/// Reads the filters. The values of one filter are alternatives; all filters have to match.
fn read_filters(filters: Vec<Arguments>, query: &mut StoreQuery) -> Result<(), Refusal> {
    let mut count = 0;
    for mut filter in filters {
        let name = filter.require("Name")?;
        let values = filter.list("Value")?;
        filter.finish()?;
        count += values.len();
        if count > MAX_FILTER_VALUES {
            return Err(Refusal::client(
                "FilterLimitExceeded",
                format!("At most {MAX_FILTER_VALUES} values of filters are allowed"),
            ));
        }
        if values.is_empty() {
            return Err(Refusal::value(format!("The filter '{}' has no value", shown(&name))));
        }
        let known = match name.as_str() {
            "task-state" => &mut query.states,
            "bucket" => &mut query.buckets,
            _ => return Err(Refusal::value(format!("The filter '{}' is invalid", shown(&name)))),
        };
        let unique: BTreeSet<String> = values.into_iter().collect();
        known.push(unique.into_iter().collect());
    }
    Ok(())
}

/// A digest of the request, which binds a pagination token to it. MaxResults is not part of it: it
/// may change between two pages.
fn binding(query: &StoreQuery) -> String {
    let text = format!("{:?} {:?} {:?}", query.image_ids, query.states, query.buckets);
    hex(&sha256::digest(text.as_bytes())[..8])
}

fn after(token: &str, binding: &str) -> Result<String, Refusal> {
    let rest = token.strip_prefix(binding).and_then(|rest| rest.strip_prefix('-'));
    let plain = |rest: &&str| {
        token.len() <= MAX_TOKEN_BYTES
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    rest.filter(plain).map(ToOwned::to_owned).ok_or_else(|| {
        Refusal::client(
            "InvalidPaginationToken",
            "The pagination token is not one of this request: begin again without it",
        )
    })
}

fn written(page: StorePage, image_ids: &ImageIds<'_>, binding: &str) -> Xml {
    let items = page.tasks.into_iter().map(|task| {
        Xml::new()
            .text("amiId", image_ids.requested(&task.image_id))
            .text("taskStartTime", milliseconds(task.started))
            .text("bucket", task.bucket)
            .text("s3objectKey", task.object_key)
            .text("progressPercentage", task.percent)
            .text("storeTaskState", task.state)
            .text_some("storeTaskFailureReason", task.reason)
    });
    let next = page.next.map(|next| format!("{binding}-{next}"));
    Xml::new().list("storeImageTaskResultSet", items).text_some("nextToken", next)
}
