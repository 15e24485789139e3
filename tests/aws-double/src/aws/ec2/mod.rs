//! EC2: routes requests to actions, reads parameters, writes answers.

mod attributes;
mod filters;
mod images;
mod lifecycle;
mod register;
mod snapshots;
mod tags;
mod tasks;
mod xml;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64_simd::STANDARD as BASE64;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};

use super::auth::AuthFailure;
use super::model::{Image, Snapshot, Tags};
use super::router::{Body, ErrorCode};
use super::world::World;

pub use xml::Xml;

/// Placeholder for the id of the request until it is known.
pub const REQUEST_ID: &str = "REQUEST-ID";
const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// An error: status, code and message.
#[derive(Clone, Debug)]
pub struct Error {
    pub status: u16,
    pub code: String,
    pub message: String,
}

pub type Outcome<T> = Result<T, Error>;

/// Entries with the keys that order them, and the token of the next page.
type Page<'i, T> = (Vec<(&'i str, T)>, Option<String>);

impl Error {
    pub fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    /// A client error, status 400.
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    fn combination(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterCombination", message)
    }

    pub fn throttled() -> Self {
        Self::new(503, "RequestLimitExceeded", "Request limit exceeded.")
    }

    pub fn expired() -> Self {
        Self::client("RequestExpired", "Request has expired.")
    }

    pub fn unauthenticated(failure: &AuthFailure) -> Self {
        match failure {
            AuthFailure::Unsigned => {
                Self::client("MissingAuthenticationToken", "The request must contain a signature.")
            }
            AuthFailure::Malformed => {
                Self::client("IncompleteSignature", "The authorization header is not complete.")
            }
            AuthFailure::Expired | AuthFailure::Skewed => Self::expired(),
            AuthFailure::WrongPayload
            | AuthFailure::WrongSignature(_)
            | AuthFailure::WrongScope(_)
            | AuthFailure::UnknownKey
            | AuthFailure::WrongToken => Self::new(
                401,
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
            ),
        }
    }

    fn no_image(id: &str) -> Self {
        Self::client("InvalidAMIID.NotFound", format!("The image id '[{id}]' does not exist"))
    }

    fn no_snapshot(id: &str) -> Self {
        Self::client("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist."))
    }

    fn not_authorized(what: &str) -> Self {
        Self::new(403, "AuthFailure", format!("Not authorized for {what}"))
    }

    pub fn answer(&self) -> Response<Body> {
        let mut xml = Xml::default();
        xml.node("Response", |xml| {
            xml.node("Errors", |xml| {
                xml.node("Error", |xml| {
                    xml.text("Code", &self.code);
                    xml.text("Message", &self.message);
                });
            });
            xml.text("RequestID", REQUEST_ID);
        });
        let mut answer = document(self.status, &xml);
        answer.extensions_mut().insert(ErrorCode(self.code.clone()));
        answer
    }
}

fn document(status: u16, xml: &Xml) -> Response<Body> {
    let mut answer = Response::new(vec![Bytes::from(format!("{HEAD}{xml}"))]);
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
        .headers_mut()
        .insert("content-type", "text/xml;charset=UTF-8".parse().expect("a header value"));
    answer
}

/// A request with a valid signature. It records the parameters that were read: all others are
/// unknown parameters.
pub struct Request<'a> {
    pub action: &'a str,
    pub account: &'a str,
    access_key: &'a str,
    parameters: &'a BTreeMap<String, String>,
    known: RefCell<BTreeSet<String>>,
}

impl<'a> Request<'a> {
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.known.borrow_mut().insert(name.to_owned());
        self.parameters.get(name).map(String::as_str)
    }

    pub fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub fn required(&self, name: &str) -> Outcome<&'a str> {
        let missing = || {
            Error::client(
                "MissingParameter",
                format!("The request must contain the parameter {name}"),
            )
        };
        self.text(name).filter(|text| !text.is_empty()).ok_or_else(missing)
    }

    pub fn flag(&self, name: &str) -> Outcome<Option<bool>> {
        let parse = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(Error::invalid(format!(
                "Invalid value '{text}' for {name}. Must be true or false."
            ))),
        };
        self.text(name).map(parse).transpose()
    }

    pub fn number(&self, name: &str) -> Outcome<Option<u64>> {
        let wrong = |text| {
            Error::invalid(format!("Invalid value '{text}' for {name}. It is not a number."))
        };
        self.text(name).map(|text| text.parse().map_err(|_| wrong(text))).transpose()
    }

    /// `Name.1`, `Name.2` and so on: the names of the members of a list, in order.
    pub fn members(&self, name: &str) -> Vec<String> {
        let number = |parameter: &String| {
            let rest = parameter.strip_prefix(name)?.strip_prefix('.')?;
            rest.split('.').next()?.parse::<u32>().ok()
        };
        let numbers: BTreeSet<u32> = self.parameters.keys().filter_map(number).collect();
        numbers.iter().map(|number| format!("{name}.{number}")).collect()
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        self.members(name).iter().filter_map(|member| self.owned(member)).collect()
    }

    /// Refuses unknown parameters, denied operations and dry runs. Checks that need no permission
    /// come first.
    pub fn authorize(&self, world: &World) -> Outcome<()> {
        let dry_run = self.flag("DryRun")? == Some(true);
        for name in ["Action", "Version"] {
            self.known.borrow_mut().insert(name.to_owned());
        }
        if let Some(unknown) =
            self.parameters.keys().find(|name| !self.known.borrow().contains(*name))
        {
            return Err(Error::client(
                "UnknownParameter",
                format!("The parameter {unknown} is not recognized"),
            ));
        }
        self.check_rights(world)?;
        if dry_run {
            return Err(Error::new(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.",
            ));
        }
        Ok(())
    }

    /// Refuses what the caller may not do.
    pub fn check_rights(&self, world: &World) -> Outcome<()> {
        if world.denies(self.access_key, "ec2", self.action) {
            let details =
                format!("{{\"allowed\":false,\"context\":{{\"action\":\"ec2:{}\"}}}}", self.action);
            let message = format!(
                "You are not authorized to perform this operation. User: arn:{}:iam::{}:user/test \
                 is not authorized to perform: ec2:{} \
                 because no identity-based policy allows it. Encoded authorization failure \
                 message: {}",
                world.partition,
                self.account,
                self.action,
                BASE64.encode_to_string(details)
            );
            return Err(Error::new(403, "UnauthorizedOperation", message));
        }
        Ok(())
    }

    /// The entries of the requested page.
    pub fn page<'i, T>(
        &self,
        world: &World,
        entries: Vec<(&'i str, T)>,
        range: (u64, u64),
    ) -> Outcome<Page<'i, T>> {
        let max = self.number("MaxResults")?;
        if let Some(max) = max.filter(|max| *max < range.0 || *max > range.1) {
            return Err(Error::invalid(format!(
                "Value ( {max} ) for parameter maxResults is invalid. Expecting a value of {} to \
                 {}.",
                range.0, range.1
            )));
        }
        let wrong = || Error::client("InvalidPaginationToken", "The token is not valid.");
        let seal = |last: &str| {
            BASE64.encode_to_string(format!(
                "{last} {} {}",
                self.action,
                super::auth::hex(&world.secret[..8])
            ))
        };
        let after = self.text("NextToken").map(|token| {
            let text = BASE64
                .decode_to_vec(token)
                .ok()
                .and_then(|text| String::from_utf8(text).ok())
                .ok_or_else(wrong)?;
            let last = text.split(' ').next().unwrap_or_default().to_owned();
            if seal(&last) == token { Ok(last) } else { Err(wrong()) }
        });
        let after = after.transpose()?;
        let limit =
            max.unwrap_or(u64::MAX).min(world.settings.ec2_page_cap.unwrap_or(usize::MAX) as u64)
                as usize;
        let rest = entries
            .into_iter()
            .skip_while(|(id, _)| after.as_deref().is_some_and(|after| *id <= after));
        let mut page: Vec<(&str, T)> = rest.take(limit.saturating_add(1)).collect();
        if page.len() <= limit {
            return Ok((page, None));
        }
        page.pop();
        let token = page.last().map(|(id, _)| seal(id));
        Ok((page, token))
    }
}

/// The operation of STS at the same address: it returns the account of a key.
pub const IDENTITY: &str = "GetCallerIdentity";

pub fn identity(world: &World, account: &str) -> Response<Body> {
    let mut xml = Xml::default();
    let arn = format!("arn:{}:iam::{account}:user/test", world.partition);
    let result = format!("<Arn>{arn}</Arn><UserId>AIDATEST</UserId><Account>{account}</Account>");
    xml.raw(&format!(
        "<{IDENTITY}Response><{IDENTITY}Result>{result}</{IDENTITY}Result></{IDENTITY}Response>"
    ));
    document(200, &xml)
}

/// Carries out a request.
pub fn answer(
    world: &mut World,
    action: &str,
    account: &str,
    access_key: &str,
    parameters: &BTreeMap<String, String>,
) -> Response<Body> {
    let request = Request { action, account, access_key, parameters, known: RefCell::default() };
    match dispatch(world, &request) {
        Err(error) => error.answer(),
        Ok(content) => {
            let mut xml = Xml::default();
            xml.root(&format!("{action}Response"), |xml| {
                xml.text("requestId", REQUEST_ID);
                xml.raw(&content.to_string());
            });
            document(200, &xml)
        }
    }
}

fn dispatch(world: &mut World, request: &Request) -> Outcome<Xml> {
    if request.parameters.get("Version").map(String::as_str) != Some("2016-11-15") {
        return Err(Error::client("NoSuchVersion", "The requested version is not 2016-11-15"));
    }
    match request.action {
        "CreateRestoreImageTask" => tasks::restore(world, request),
        "CreateStoreImageTask" => tasks::store(world, request),
        "CreateTags" => tags::create(world, request),
        "DeleteSnapshot" => snapshots::delete(world, request),
        "DeleteTags" => tags::delete(world, request),
        "DeregisterImage" => lifecycle::deregister(world, request),
        "DescribeImageAttribute" => attributes::describe_image(world, request),
        "DescribeImages" => images::describe(world, request),
        "DescribeSnapshotAttribute" => attributes::describe_snapshot(world, request),
        "DescribeSnapshots" => snapshots::describe(world, request),
        "DescribeSnapshotTierStatus" => snapshots::describe_tiers(world, request),
        "DescribeStoreImageTasks" => tasks::describe(world, request),
        "DescribeTags" => tags::describe(world, request),
        "DisableImage" => lifecycle::disable(world, request),
        "DisableImageDeprecation" => lifecycle::disable_deprecation(world, request),
        "DisableImageDeregistrationProtection" => lifecycle::unprotect(world, request),
        "EnableImage" => lifecycle::enable(world, request),
        "EnableImageDeprecation" => lifecycle::enable_deprecation(world, request),
        "EnableImageDeregistrationProtection" => lifecycle::protect(world, request),
        "GetEbsDefaultKmsKeyId" => lifecycle::default_kms_key(world, request),
        "GetEbsEncryptionByDefault" => lifecycle::encryption_by_default(world, request),
        "ModifyImageAttribute" => attributes::modify_image(world, request),
        "ModifySnapshotAttribute" => attributes::modify_snapshot(world, request),
        "RegisterImage" => register::register(world, request),
        action => Err(Error::client(
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        )),
    }
}

/// `true`, the answer of actions without a result.
fn success() -> Xml {
    let mut xml = Xml::default();
    xml.text("return", "true");
    xml
}

/// Whether an id is a prefix and 8 or 17 hexadecimal digits.
fn well_formed(id: &str, prefix: &str) -> bool {
    let digits = id.strip_prefix(prefix).unwrap_or_default();
    matches!(digits.len(), 8 | 17)
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn checked_image_id(id: &str) -> Outcome<()> {
    if well_formed(id, "ami-") {
        return Ok(());
    }
    Err(Error::client(
        "InvalidAMIID.Malformed",
        format!("Invalid id: \"{id}\" (expecting \"ami-...\")"),
    ))
}

fn checked_snapshot_id(id: &str) -> Outcome<()> {
    if well_formed(id, "snap-") {
        return Ok(());
    }
    if !id.starts_with("snap-") {
        return Err(Error::invalid(format!(
            "Value ({id}) for parameter snapshotId is invalid. Expected: 'snap-...'."
        )));
    }
    Err(Error::client("InvalidSnapshotID.Malformed", format!("Invalid id: \"{id}\"")))
}

fn can_see_image(image: &Image, account: &str) -> bool {
    image.owner == account || image.launch.all || image.launch.users.contains(account)
}

fn can_see_snapshot(snapshot: &Snapshot, account: &str) -> bool {
    snapshot.owner == account
        || snapshot.permissions.all
        || snapshot.permissions.users.contains(account)
}

/// The image, if the account may see it and it is already visible.
fn image<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Image> {
    checked_image_id(id)?;
    if world.deregistered.contains(id) {
        return Err(Error::client(
            "InvalidAMIID.Unavailable",
            format!("The image ID '{id}' is no longer available"),
        ));
    }
    let image = world
        .images
        .get_mut(id)
        .filter(|image| can_see_image(image, account))
        .ok_or_else(|| Error::no_image(id))?;
    if image.visible_after > 0 {
        image.visible_after -= 1;
        return Err(Error::no_image(id));
    }
    Ok(image)
}

/// The image, if the account owns it.
fn own_image<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Image> {
    let image = image(world, id, account)?;
    if image.owner == account {
        Ok(image)
    } else {
        Err(Error::not_authorized(&format!("image:{id}")))
    }
}

/// The snapshot, if the account may see it and it is already visible.
fn snapshot<'a>(world: &'a mut World, id: &str, account: &str) -> Outcome<&'a mut Snapshot> {
    checked_snapshot_id(id)?;
    let found = world.snapshots.get_mut(id).filter(|snapshot| can_see_snapshot(snapshot, account));
    let snapshot = found.ok_or_else(|| Error::no_snapshot(id))?;
    if snapshot.visible_after.describes > 0 {
        snapshot.visible_after.describes -= 1;
        return Err(Error::no_snapshot(id));
    }
    Ok(snapshot)
}

/// Tags under a name: `Tag.1.Key` and so on.
fn tags_of(request: &Request, name: &str) -> Outcome<Tags> {
    let mut found = Tags::new();
    for member in request.members(name) {
        let key = request.required(&format!("{member}.Key"))?;
        let value = request.text(&format!("{member}.Value")).unwrap_or_default();
        if key.to_lowercase().starts_with("aws:") {
            return Err(Error::invalid(
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        if key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(Error::invalid(format!(
                "Tag key or value exceeds the maximum length: {key}"
            )));
        }
        if found.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Error::client(
                "InvalidParameterValue",
                format!("Duplicate tag key '{key}' specified."),
            ));
        }
    }
    if found.len() > 50 {
        return Err(Error::client(
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ));
    }
    Ok(found)
}

/// Tags by type of resource: `TagSpecification.1.ResourceType` and so on.
fn tag_specifications(request: &Request, allowed: &[&str]) -> Outcome<BTreeMap<String, Tags>> {
    let mut found: BTreeMap<String, Tags> = BTreeMap::new();
    for member in request.members("TagSpecification") {
        let kind = request.required(&format!("{member}.ResourceType"))?;
        if !allowed.contains(&kind) {
            return Err(Error::invalid(format!(
                "'{kind}' is not a valid taggable resource type for this operation."
            )));
        }
        let tags = tags_of(request, &format!("{member}.Tag"))?;
        if tags.is_empty() {
            return Err(Error::client(
                "MissingParameter",
                "Tag specification must have at least one tag",
            ));
        }
        if found.insert(kind.to_owned(), tags).is_some() {
            return Err(Error::combination(format!(
                "Duplicate resource type '{kind}' in tag specifications"
            )));
        }
    }
    Ok(found)
}
