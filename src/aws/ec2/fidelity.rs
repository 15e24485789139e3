//! What came back of an image, attribute by attribute.

use serde_json::Value;

/// What became of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// It is as it was recorded.
    Set,
    /// It is something else: because that was asked for, or because EC2 made it so.
    Changed,
    /// It can be set, and that was not asked for.
    Left,
    /// It cannot be set.
    Impossible,
}

impl Fidelity {
    /// The stable name, as printed in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Changed => "changed",
            Self::Left => "left",
            Self::Impossible => "impossible",
        }
    }
}

/// An attribute that was recorded, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FidelityItem {
    /// What has it: `image`, a device or a snapshot of the archive.
    pub subject: String,
    /// Its name in EC2.
    pub attribute: String,
    /// What the archive says.
    pub recorded: Value,
    /// What it is now, if that is something else.
    pub now: Option<Value>,
    /// What became of it.
    pub fidelity: Fidelity,
    /// Why, unless it is as it was.
    pub reason: Option<String>,
}

impl FidelityItem {
    fn new(subject: &str, attribute: &str, recorded: &Value, fidelity: Fidelity) -> Self {
        let (subject, attribute, recorded) =
            (subject.to_owned(), attribute.to_owned(), recorded.clone());
        Self { subject, attribute, recorded, now: None, fidelity, reason: None }
    }

    pub(super) fn set(subject: &str, attribute: &str, recorded: &Value) -> Self {
        Self::new(subject, attribute, recorded, Fidelity::Set)
    }

    pub(super) fn changed(
        subject: &str,
        attribute: &str,
        recorded: &Value,
        now: Value,
        reason: &str,
    ) -> Self {
        let item = Self::new(subject, attribute, recorded, Fidelity::Changed);
        Self { now: Some(now), reason: Some(reason.to_owned()), ..item }
    }

    pub(super) fn left(subject: &str, attribute: &str, recorded: &Value, reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::new(subject, attribute, recorded, Fidelity::Left)
        }
    }

    pub(super) fn impossible(
        subject: &str,
        attribute: &str,
        recorded: &Value,
        reason: &str,
    ) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::new(subject, attribute, recorded, Fidelity::Impossible)
        }
    }

    /// What EC2 says of it after the image was registered. It is believed over what was asked for.
    pub(super) fn observe(&mut self, found: &Value) {
        let wanted = self.now.as_ref().unwrap_or(&self.recorded);
        if found == wanted || !matches!(self.fidelity, Fidelity::Set | Fidelity::Changed) {
            return;
        }
        self.fidelity = Fidelity::Changed;
        self.now = Some(found.clone());
        self.reason = Some("EC2 was asked for it, and says something else".to_owned());
    }
}
