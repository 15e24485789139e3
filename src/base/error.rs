//! The one error type of the crate.
//!
//! A message states what amistore could not do, in lower case and without a full stop; facts go
//! into the context, for printing only; the cause keeps its own words. Decisions (hints, retries,
//! EC2's codes) are made from the kind, the [`ErrorCode`] and the typed members. Hints for people
//! are made at the edge.

mod code;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

pub use code::ErrorCode;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The sort of a failure. It decides the exit code of the program, so adding a kind is a
/// change of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of amistore itself.
    Internal,
    /// The request or the data given to us cannot be worked with.
    Usage,
    /// Something named does not exist.
    NotFound,
    /// Access was denied.
    Denied,
    /// An archive is damaged, or was made to look like one.
    Corrupt,
    /// Reading or writing failed.
    Io,
    /// A limit was reached.
    Limit,
    /// A newer format, a foreign file, or a kind of image we cannot handle.
    Unsupported,
    /// The target is there already.
    Exists,
    /// The user or the system asked us to stop.
    Interrupted,
}

impl ErrorKind {
    /// The stable lower-case name, as printed in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::Io => "io",
            Self::Limit => "limit",
            Self::Unsupported => "unsupported",
            Self::Exists => "exists",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Corrupt => 5,
            Self::Io => 6,
            Self::Limit => 7,
            Self::Unsupported => 8,
            Self::Exists => 9,
            Self::Interrupted => 130,
        }
    }
}

/// Whether the same request may succeed if it is made again. Decided where the failure is still in
/// hand, not from its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It will fail again.
    #[default]
    No,
    /// Something broke on the way: soon.
    Transient,
    /// The answer arrived and is itself wrong, as a damaged source gives it each time: soon, and a
    /// few times only.
    Damaged,
    /// Too many requests: later, and fewer at once.
    Throttle,
    /// Something that was handed out to us, such as credentials, has expired: with a new one.
    Stale,
}

/// A service of AWS, or one that speaks the protocol of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AwsService {
    /// The direct APIs of EBS.
    Ebs,
    /// EC2.
    Ec2,
    /// S3, or a compatible store.
    S3,
    /// STS.
    Sts,
}

/// The refusal of a service, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAnswer {
    /// The service, once the connection is known.
    pub service: Option<AwsService>,
    /// The error code, such as `NoSuchKey`; absent where the answer has no body.
    pub code: Option<String>,
    /// The HTTP status.
    pub status: u16,
}

/// An image that has the name which another image was to get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameHolder {
    /// The name; absent where a service names the image only.
    pub name: Option<String>,
    /// The id of the image, as its service prints it.
    pub image_id: String,
}

/// How interrupted work is continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The command line, as a shell reads it.
    pub command: String,
    /// Whether snapshots in EC2 wait for it, which cost money.
    pub keeps_snapshots: bool,
}

/// An error: kind, code, message, facts, cause. A clone shares the cause: threads that wait for one
/// outcome all get its error.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    code: Option<ErrorCode>,
    retry: Retry,
    attempts: u32,
    answer: Option<ServiceAnswer>,
    resume: Option<Resume>,
    conversion: Option<&'static str>,
    name_holder: Option<NameHolder>,
    left_snapshots: Vec<String>,
    undo: bool,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what could not be done or what is wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: None,
            retry: Retry::No,
            attempts: 1,
            answer: None,
            resume: None,
            conversion: None,
            name_holder: None,
            left_snapshots: Vec::new(),
            undo: false,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// [`ErrorKind::Corrupt`].
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// [`ErrorKind::Interrupted`].
    pub fn interrupted() -> Self {
        Self::new(ErrorKind::Interrupted, "interrupted")
    }

    /// An error of the operating system; its kind follows from the cause.
    pub fn io(message: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let kind = match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::Denied
            }
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).because(cause)
    }

    /// Adds a fact, such as `("path", …)`, `("block", …)`.
    #[must_use]
    pub fn at(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Adds a fact, unless one of this name is there.
    #[must_use]
    pub fn at_once(self, key: &'static str, value: impl fmt::Display) -> Self {
        if self.0.context.iter().any(|(known, _)| *known == key) {
            self
        } else {
            self.at(key, value)
        }
    }

    /// Sets the code.
    #[must_use]
    pub fn code_as(mut self, code: ErrorCode) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Sets the code, unless there is one.
    #[must_use]
    pub fn or_code(mut self, code: ErrorCode) -> Self {
        self.0.code.get_or_insert(code);
        self
    }

    /// Adds the refusal of a service, as facts, too.
    #[must_use]
    pub fn answered(mut self, answer: ServiceAnswer) -> Self {
        if let Some(code) = &answer.code {
            self.0.context.push(("code", code.clone()));
        }
        self.0.context.push(("status", answer.status.to_string()));
        self.0.answer = Some(answer);
        self
    }

    /// Names the service whose refusal this is, if it is one.
    #[must_use]
    pub fn of_service(mut self, service: AwsService) -> Self {
        if let Some(answer) = &mut self.0.answer {
            answer.service = Some(service);
        }
        self
    }

    /// Notes that a request failed for good at attempt `attempts`; a fact if there were several.
    #[must_use]
    pub fn after_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        if attempts > 1 { self.at("attempts", attempts) } else { self }
    }

    /// Adds the command that continues the work, as the fact `resume_with`, too.
    #[must_use]
    pub fn resumed_by(mut self, resume: Resume) -> Self {
        self.0.context.push(("resume_with", resume.command.clone()));
        self.0.resume = Some(resume);
        self
    }

    /// Adds a command that converts the file `FILE` into one that can be used, as the fact
    /// `convert_with`, too.
    #[must_use]
    pub fn converted_by(mut self, command: &'static str) -> Self {
        self.0.context.push(("convert_with", command.to_owned()));
        self.0.conversion = Some(command);
        self
    }

    /// Names the image that has the name already, as facts, too.
    #[must_use]
    pub fn name_taken_by(mut self, holder: NameHolder) -> Self {
        if let Some(name) = &holder.name {
            self.0.context.push(("name", name.clone()));
            self.0.context.push(("image_id", holder.image_id.clone()));
        }
        self.0.name_holder = Some(holder);
        self
    }

    /// Names the snapshots that could not be deleted, as the fact `snapshots`, too.
    #[must_use]
    pub fn leaving(mut self, snapshots: Vec<String>) -> Self {
        self.0.context.push(("snapshots", snapshots.join(", ")));
        self.0.left_snapshots = snapshots;
        self
    }

    /// Marks begun work as worthless: its resources are to be removed, and it is not continued.
    #[must_use]
    pub fn undoing(mut self) -> Self {
        self.0.undo = true;
        self
    }

    /// Whether begun work is to be undone.
    pub fn undoes(&self) -> bool {
        self.0.undo
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn retry_as(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Changes the kind: the caller of a request knows better what a refusal means.
    #[must_use]
    pub fn as_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(cause.into()));
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The code, if the cause has one.
    pub fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Whether this is the code.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.0.code == Some(code)
    }

    /// The refusal of a service, if a service answered.
    pub fn answer(&self) -> Option<&ServiceAnswer> {
        self.0.answer.as_ref()
    }

    /// Whether the request was made more than once: an earlier attempt may have succeeded, and its
    /// answer may be lost.
    pub fn was_repeated(&self) -> bool {
        self.0.attempts > 1
    }

    /// How the work is continued, if it can be.
    pub fn resume(&self) -> Option<&Resume> {
        self.0.resume.as_ref()
    }

    /// The command that converts the file `FILE` into one that can be used, if there is one.
    pub fn conversion(&self) -> Option<&'static str> {
        self.0.conversion
    }

    /// The image that has the name already, if the failure is that.
    pub fn name_holder(&self) -> Option<&NameHolder> {
        self.0.name_holder.as_ref()
    }

    /// The snapshots that could not be deleted; empty if the failure is not that.
    pub fn left_snapshots(&self) -> &[String] {
        &self.0.left_snapshots
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The sentence on the step that failed.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The facts, in the order they were added.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The value of one fact, for tests and for printing: decisions use [`code`](Self::code) and
    /// the typed members.
    #[doc(hidden)]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.0.context.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str())
    }

    /// A copy. Its causes are one text.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let causes = self.causes().join(": ");
        let copy = Self(Box::new(Inner {
            message: self.0.message.clone(),
            context: self.0.context.clone(),
            answer: self.0.answer.clone(),
            resume: self.0.resume.clone(),
            name_holder: self.0.name_holder.clone(),
            left_snapshots: self.0.left_snapshots.clone(),
            source: None,
            ..*self.0
        }));
        if causes.is_empty() { copy } else { copy.because(causes) }
    }

    /// The messages of the causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.name(), self.0.message)?;
        for (key, value) in &self.0.context {
            write!(f, ", {key} {value}")?;
        }
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
