//! Forwards other actions to EC2, with reserved image ids translated to those of EC2.

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

/// An answer of EC2 whose body is streamed.
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The content type of the body.
    pub content_type: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The body. It fails if it ends early.
    pub body: UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>,
}

/// The future of [`Upstream::ask`].
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answered>> + Send + 'a>>;

/// The service that answers other actions. A request is sent once: the client decides whether to
/// repeat it.
pub trait Upstream: Send + Sync {
    /// Sends a form unchanged, with a new signature. A refusal is an answer; only a request without
    /// any answer is an error.
    fn ask(&self, action: &str, form: Bytes) -> Answering<'_>;
}

impl Upstream for Ec2Connection {
    fn ask(&self, action: &str, form: Bytes) -> Answering<'_> {
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

/// The plan for a request to EC2: the form to send, and the changes to the answer.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The form for EC2: `None` if EC2 is not asked, `Some(None)` for the form of the client.
    pub(super) form: Option<Option<Params>>,
    /// Pairs of reserved id and id of EC2.
    names: Vec<(String, String)>,
    /// Images that EC2 does not have yet.
    own: Vec<RestoredImage>,
}

impl Plan {
    /// Looks up all image ids. `forwards` tells whether EC2 can be asked. Blocks like the service.
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
                // EC2 finds no image by this value; without the value it would find more images.
                (Some(image), _, Asks::ByFilter) => {
                    plan.own.push(image);
                    value.clone()
                }
                // EC2 finds no image by this value until the image is registered.
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
        // EC2 is not asked if all images are restored here: without ids it lists all images.
        let is_own =
            if list.is_empty() { foreign == 0 && plan.names.is_empty() } else { listed == 0 };
        if !plan.own.is_empty() && is_own {
            plan.form = None;
        } else if known > 0 {
            plan.form = Some(Some(form.into_iter().collect()));
        }
        if !forwards && plan.form.is_some() {
            let message = format!(
                "The action {} is not one of this server, which knows CreateStoreImageTask, \
                 DescribeStoreImageTasks and CreateRestoreImageTask. Start it with --forward, and \
                 EC2 answers all others",
                action.chars().take(100).collect::<String>()
            );
            return Err(Refusal::client("InvalidAction", message));
        }
        // Images that EC2 does not have yet are on the first page.
        let is_first = params.get("NextToken").is_none_or(str::is_empty);
        plan.own.retain(|image| {
            is_first
                && (list.is_empty() || list.contains(&image.reserved.as_str()))
                && filters.admits(image)
        });
        Ok(plan)
    }

    /// The answer to DescribeImages if all its images are restored here.
    pub(super) fn own_answer(&self) -> Xml {
        let mut seen = BTreeSet::new();
        Xml::new().list(
            "imagesSet",
            self.own.iter().filter(|image| seen.insert(image.reserved.as_str())).map(described),
        )
    }

    /// Tells whether EC2's answer is sent unchanged.
    fn is_plain(&self) -> bool {
        self.names.is_empty() && self.own.is_empty()
    }

    /// Writes reserved ids and images that EC2 does not have yet into EC2's answer.
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

/// The way a parameter of DescribeImages names an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// In the list of ids.
    ByList,
    /// As a value of the filter `image-id`.
    ByFilter,
    /// In another way, or not at all.
    Otherwise,
}

/// The filters of DescribeImages.
struct Filters(Vec<Filter>);

struct Filter {
    name: String,
    /// The prefix of the names of its values.
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
        // EC2 allows 200 values of filters, so it refuses a request with more filters.
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

    /// Tells whether the filters admit an image that EC2 does not have yet. A filter on an
    /// attribute that is unknown before the registration admits it.
    fn admits(&self, image: &RestoredImage) -> bool {
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

/// An item of DescribeImages for an image that EC2 does not have yet, with the known attributes.
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
