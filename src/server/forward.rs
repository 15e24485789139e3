//! Forwards other actions to EC2, with reserved image ids translated to those of EC2.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use super::http::{Body, Reply};
use super::image_ids::{parse, registered, renamed, unavailable};
use super::images_set::{Changes, ImagesSet, Rewritten};
use super::pending_image::{Conditions, described};
use super::{Refusal, Service};
use crate::aws::ec2::Ec2Connection;
use crate::aws::ec2_query::{MAX_ANSWER_BYTES, Params, Xml};
use crate::base::Result;

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
    /// The changes to the answer of DescribeImages.
    images: Changes,
    /// Whether images are asked for by their attributes, and not by ids.
    lists: bool,
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
        let conditions = Conditions::of(params);
        let mut plan = Self { form: Some(None), ..Self::default() };
        let mut form = Vec::new();
        let (mut listed, mut foreign, mut known) = (0, 0, 0);
        let (mut list, mut named) = (Vec::new(), HashSet::new());
        for (name, value) in params.pairs() {
            let asks = if describes { Asks::of(name, &conditions) } else { Asks::Otherwise };
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
                (None, ..) => {
                    named.insert(value.as_str());
                    value.clone()
                }
                (Some(image), Some(real), _) if forwards || asks == Asks::Otherwise => {
                    plan.names.push((image.reserved.to_string(), real.clone()));
                    real
                }
                (Some(image), _, Asks::ByList) => {
                    plan.images.own.push(image);
                    continue;
                }
                // EC2 finds no image by this value; without the value it would find more images.
                (Some(image), _, Asks::ByFilter) => {
                    plan.images.own.push(image);
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
        plan.lists = describes
            && list.is_empty()
            && foreign == 0
            && plan.names.is_empty()
            && plan.images.own.is_empty();
        // EC2 is not asked if all images are restored here: without ids it lists all images.
        let is_own =
            if list.is_empty() { foreign == 0 && plan.names.is_empty() } else { listed == 0 };
        if !plan.images.own.is_empty() && is_own {
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
        if describes && plan.form.is_some() {
            plan.images.pending = service.pending()?;
            plan.images.ids = service.restored_ids()?;
            // A client that names an image by the id of EC2 gets that id.
            let is_reserved = |real: &String| plan.names.iter().any(|(_, known)| known == real);
            plan.images.ids.retain(|real, _| !named.contains(real.as_str()) || is_reserved(real));
            if plan.lists {
                plan.images.own.clone_from(&plan.images.pending);
            }
        }
        // Images that EC2 does not have yet are on the first page.
        let is_first = params.get("NextToken").is_none_or(str::is_empty);
        plan.images.own.retain(|image| {
            is_first
                && (list.is_empty() || list.contains(&image.reserved.as_str()))
                && conditions.admit(image)
        });
        Ok(plan)
    }

    /// The answer to DescribeImages if all its images are restored here.
    pub(super) fn own_answer(&self) -> Xml {
        let mut seen = HashSet::new();
        let own = self.images.own.iter().filter(|image| seen.insert(image.reserved.as_str()));
        Xml::new().list("imagesSet", own.map(described))
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
        let is_plain = self.names.is_empty() && (self.images.is_none() || status != 200);
        reply.body = if is_plain {
            body
        } else if self.lists {
            // All public images are a long list.
            Rewritten::new(body, self.images).boxed_unsync()
        } else {
            self.rewritten(status, body).await?
        };
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
        if status == 200 && !self.images.is_none() {
            let mut set = ImagesSet::new(self.images);
            let mut written =
                set.push(&whole).map_err(|_| failed("has an image that is too long"))?;
            written.append(&mut set.end());
            whole = written;
        }
        let mut text = String::from_utf8_lossy(&whole).into_owned();
        for (reserved, real) in &self.names {
            text = renamed(&text, real, reserved);
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

impl Asks {
    fn of(parameter: &str, conditions: &Conditions) -> Self {
        let number = parameter.strip_prefix("ImageId.");
        if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
            return Self::ByList;
        }
        if conditions.is_image_id(parameter) { Self::ByFilter } else { Self::Otherwise }
    }
}
