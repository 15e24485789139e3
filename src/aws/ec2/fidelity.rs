//! The report on attributes of a restored image.

use serde_json::Value;

/// The outcome of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// It is as recorded.
    Set,
    /// It differs, because an option changed it, or EC2 set it otherwise.
    Changed,
    /// It can be set, and no option asked for it.
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

/// A recorded attribute, and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct FidelityItem {
    /// The owner of the attribute: `image`, a device or a snapshot of the archive.
    pub subject: String,
    /// Its name in EC2.
    pub attribute: String,
    /// The value in the archive.
    pub recorded: Value,
    /// The new value, if it differs.
    pub now: Option<Value>,
    /// The outcome.
    pub fidelity: Fidelity,
    /// The reason, unless the attribute is set.
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

    /// Updates the item with the value by EC2's description of the new image.
    pub(super) fn observe(&mut self, found: &Value) {
        let expected = self.now.as_ref().unwrap_or(&self.recorded);
        if found == expected || !matches!(self.fidelity, Fidelity::Set | Fidelity::Changed) {
            return;
        }
        self.fidelity = Fidelity::Changed;
        self.now = Some(found.clone());
        self.reason = Some("EC2 set another value than was requested".to_owned());
    }
}
