//! Actions that are not ours: EC2 answers them, and hears its own ids.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::http::{Body, Reply};
use super::image_ids::{parse, registered, renamed, unavailable};
use super::times::milliseconds;
use super::{Refusal, RestoreProgress, RestoredImage, Service};
use crate::aws::ec2::Ec2Connection;
use crate::aws::ec2_query::{MAX_ANSWER_BYTES, Params, Xml};
use crate::base::{Result, fits_pattern};

/// The type of images that have disks: all that are restored.
const IMAGE_TYPE: &str = "machine";

/// An answer whose body is still to come.
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The type of the body, if it has one.
    pub content_type: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The body. It fails if it ends early.
    pub body: UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>,
}

/// What [`Upstream::ask`] returns at once.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<Answered>> + Send + 'a>>;

/// Who answers actions that are not ours. Each question is put once: whoever asked decides whether
/// to ask again.
pub trait Upstream: Send + Sync {
    /// Sends a form as it is, signed anew. Refusals are answers; only who is not answered at all
    /// gets an error.
    fn ask(&self, action: &str, form: Bytes) -> Asked<'_>;
}

impl Upstream for Ec2Connection {
    fn ask(&self, action: &str, form: Bytes) -> Asked<'_> {
        let action = action.to_owned();
        Box::pin(async move {
            let answer = self.forward(&action, form).await?;
            let body = answer
                .body
                .map_err(|error| Box::new(error) as Box<dyn StdError + Send + Sync>)
                .boxed_unsync();
            Ok(Answered {
                status: answer.status,
                content_type: answer.content_type,
                request_id: answer.request_id,
                body,
            })
        })
    }
}

/// What is done about a request with reserved ids.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The form as EC2 gets it: `None` if EC2 is not asked, `Some(None)` if it gets what came.
    pub(super) form: Option<Option<Params>>,
    /// Reserved ids, and EC2's own.
    names: Vec<(String, String)>,
    /// Images that EC2 does not know yet.
    own: Vec<RestoredImage>,
}

impl Plan {
    /// Looks every image id up. `forwards` says whether EC2 can be asked. Blocks as long as the
    /// service does.
    pub(super) fn of(
        action: &str,
        params: &Params,
        service: &dyn Service,
        forwards: bool,
    ) -> Result<Self, Refusal> {
        let describes = action == "DescribeImages";
        let filters = Filters::of(params);
        let mut plan = Self { form: Some(None), ..Self::default() };
        let mut form = Vec::new();
        let (mut listed, mut foreign, mut known) = (0, 0, 0);
        let mut list = Vec::new();
        for (name, value) in params.pairs() {
            let asks = if describes { filters.asks(name) } else { Asks::Otherwise };
            if asks == Asks::ByList {
                list.push(value.as_str());
            }
            let image = match parse(value) {
                Some(id) => service.restored(&id)?,
                None => None,
            };
            known += usize::from(image.is_some());
            foreign += usize::from(image.is_none() && asks != Asks::Otherwise);
            let real = image.as_ref().and_then(registered).map(ToString::to_string);
            let value = match (image, real, asks) {
                (None, ..) => value.clone(),
                (Some(image), Some(real), _) if forwards || asks == Asks::Otherwise => {
                    plan.names.push((image.reserved.to_string(), real.clone()));
                    real
                }
                (Some(image), _, Asks::ByList) => {
                    plan.own.push(image);
                    continue;
                }
                // EC2 finds nothing by it, and without it would find more.
                (Some(image), _, Asks::ByFilter) => {
                    plan.own.push(image);
                    value.clone()
                }
                // Nothing is found by it until it is there.
                (Some(_), ..) if describes => value.clone(),
                (Some(image), ..) => return Err(unavailable(&image)),
            };
            let name = if asks == Asks::ByList {
                listed += 1;
                format!("ImageId.{listed}")
            } else {
                name.clone()
            };
            form.push((name, value));
        }
        // EC2 is not asked for what only we know; without its list it would tell of all images.
        let is_ours =
            if list.is_empty() { foreign == 0 && plan.names.is_empty() } else { listed == 0 };
        if !plan.own.is_empty() && is_ours {
            plan.form = None;
        } else if known > 0 {
            plan.form = Some(Some(form.into_iter().collect()));
        }
        if !forwards && plan.form.is_some() {
            let message = format!(
                "The action {} is not one of this server, which knows CreateStoreImageTask, DescribeStoreImageTasks and CreateRestoreImageTask. Start it with --forward, and EC2 answers all others",
                action.chars().take(100).collect::<String>()
            );
            return Err(Refusal::client("InvalidAction", message));
        }
        // They are on the first page.
        let is_first = params.get("NextToken").is_none_or(str::is_empty);
        plan.own.retain(|image| {
            is_first
                && (list.is_empty() || list.contains(&image.reserved.as_str()))
                && filters.let_through(image)
        });
        Ok(plan)
    }

    /// The answer to DescribeImages of images that are all our own.
    pub(super) fn own_answer(&self) -> Xml {
        let mut seen = BTreeSet::new();
        Xml::new().list(
            "imagesSet",
            self.own.iter().filter(|image| seen.insert(image.reserved.as_str())).map(described),
        )
    }

    /// Whether EC2's answer goes out as it comes.
    fn is_plain(&self) -> bool {
        self.names.is_empty() && self.own.is_empty()
    }

    /// Takes EC2's answer, by the ids that were asked for, with our own images in it.
    pub(super) async fn finish(self, answered: Answered) -> Result<Reply, Refusal> {
        let Answered { status, content_type, request_id, body } = answered;
        let content_type = content_type.unwrap_or_else(|| "text/xml;charset=UTF-8".to_owned());
        let mut reply = Reply::new(status, &content_type, Bytes::new());
        reply.code = if status < 400 { "ok".to_owned() } else { status.to_string() };
        if let Some(id) = request_id {
            reply = reply.with("x-amzn-requestid", id);
        }
        reply.body = if self.is_plain() { body } else { self.rewritten(status, body).await? };
        Ok(reply)
    }

    async fn rewritten(self, status: u16, mut body: Body) -> Result<Body, Refusal> {
        let failed =
            |why: &str| Refusal::new(502, "Unavailable", format!("the answer of EC2 {why}"));
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| failed("ended early"))?.into_data().unwrap_or_default();
            if whole.len() + data.len() > MAX_ANSWER_BYTES {
                return Err(failed("is too long to be translated"));
            }
            whole.extend_from_slice(&data);
        }
        let mut text = String::from_utf8_lossy(&whole).into_owned();
        for (reserved, real) in &self.names {
            text = renamed(&text, real, reserved);
        }
        if status == 200 && !self.own.is_empty() {
            let items = self.own_answer();
            let items =
                items.as_str().trim_start_matches("<imagesSet>").trim_end_matches("</imagesSet>");
            text = match text.rfind("</imagesSet>") {
                Some(at) => format!("{}{items}{}", &text[..at], &text[at..]),
                None => {
                    text.replacen("<imagesSet/>", &format!("<imagesSet>{items}</imagesSet>"), 1)
                }
            };
        }
        Ok(Reply::new(status, "", text).body)
    }
}

/// How a parameter of DescribeImages asks for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// In the list of ids.
    ByList,
    /// As a value of the filter `image-id`.
    ByFilter,
    /// Not at all, or in words that only EC2 knows.
    Otherwise,
}

/// The filters of DescribeImages.
struct Filters(Vec<Filter>);

struct Filter {
    name: String,
    /// What the names of its values begin with.
    start: String,
    values: Vec<String>,
}

impl Filters {
    fn of(params: &Params) -> Self {
        let names = params.pairs().iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("Filter.")?.strip_suffix(".Name")?, value))
        });
        let filter = |(number, name): (&str, &String)| {
            let start = format!("Filter.{number}.Value.");
            let values = params
                .pairs()
                .iter()
                .filter(|(name, _)| name.starts_with(&start))
                .map(|(_, value)| value.clone())
                .collect();
            Filter { name: name.clone(), start, values }
        };
        // EC2 allows 200 values, so more filters than that are no question to EC2.
        Self(names.take(200).map(filter).collect())
    }

    fn asks(&self, parameter: &str) -> Asks {
        if parameter
            .strip_prefix("ImageId.")
            .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Asks::ByList;
        }
        let is_value =
            |filter: &Filter| filter.name == "image-id" && parameter.starts_with(&filter.start);
        if self.0.iter().any(is_value) { Asks::ByFilter } else { Asks::Otherwise }
    }

    /// Whether they find an image that EC2 does not have yet. Those that ask for what is not known
    /// of it before say nothing.
    fn let_through(&self, image: &RestoredImage) -> bool {
        self.0.iter().all(|filter| {
            let known = match filter.name.as_str() {
                "image-id" => image.reserved.as_str(),
                "image-type" => IMAGE_TYPE,
                "is-public" => "false",
                "name" => image.name.as_deref().unwrap_or_default(),
                "state" => state(image),
                _ => return true,
            };
            filter.values.iter().any(|pattern| fits_pattern(pattern, known))
        })
    }
}

fn state(image: &RestoredImage) -> &'static str {
    match image.progress {
        RestoreProgress::Pending => "pending",
        RestoreProgress::Available => "available",
        RestoreProgress::Failed => "failed",
    }
}

/// An image as DescribeImages shows it, as far as it is known before EC2 has it.
fn described(image: &RestoredImage) -> Xml {
    let mut xml = Xml::new()
        .text("imageId", &image.reserved)
        .text("imageLocation", &image.location)
        .text("imageState", state(image))
        .text("creationDate", milliseconds(image.started))
        .text("isPublic", false)
        .text("imageType", IMAGE_TYPE)
        .text_some("name", image.name.as_ref())
        .list("blockDeviceMapping", [])
        .list("tagSet", []);
    if image.progress == RestoreProgress::Failed {
        let reason = image.reason.as_deref().unwrap_or("the restore failed");
        xml = xml.inside(
            "stateReason",
            &Xml::new().text("code", "Client.RestoreFailed").text("message", reason),
        );
    }
    xml
}
