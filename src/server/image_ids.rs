//! Ids that were given out before EC2 had one.
//!
//! Whoever asks by a reserved id is answered by it: requests are translated to EC2's id, answers
//! back. Whoever does not name it sees EC2's own.

use super::{Refusal, RestoreProgress, RestoredImage, Service};
use crate::base::ImageId;

/// What became of the reserved ids of one request.
pub(super) struct ImageIds<'a> {
    service: &'a dyn Service,
    /// Reserved, and EC2's own.
    known: Vec<(String, String)>,
}

impl<'a> ImageIds<'a> {
    pub(super) fn new(service: &'a dyn Service) -> Self {
        Self { service, known: Vec::new() }
    }

    /// EC2's id of an image. Refuses a reserved one for which there is no image yet, and says how
    /// far it is.
    pub(super) fn real(&mut self, id: &ImageId) -> Result<ImageId, Refusal> {
        let Some(image) = self.service.restored(id)? else { return Ok(id.clone()) };
        match registered(&image) {
            Some(real) => {
                self.known.push((id.to_string(), real.to_string()));
                Ok(real.clone())
            }
            None => Err(unavailable(&image)),
        }
    }

    /// The id by which this image was asked for.
    pub(super) fn requested<'b>(&'b self, id: &'b str) -> &'b str {
        self.known.iter().find(|(_, real)| real == id).map_or(id, |(reserved, _)| reserved)
    }
}

/// An image id, if it is one.
pub(super) fn parse(text: &str) -> Option<ImageId> {
    ImageId::parse(text).ok()
}

/// EC2's id, once the image is there.
pub(super) fn registered(image: &RestoredImage) -> Option<&ImageId> {
    image.image_id.as_ref().filter(|_| image.progress == RestoreProgress::Available)
}

/// `InvalidAMIID.Unavailable`, with the reason.
pub(super) fn unavailable(image: &RestoredImage) -> Refusal {
    let state = match (image.progress, &image.reason) {
        (RestoreProgress::Failed, Some(reason)) => format!("could not be restored: {reason}"),
        (RestoreProgress::Failed, None) => "could not be restored".to_owned(),
        _ => format!(
            "is being restored from {}, {} % are done: wait until it is available",
            image.location, image.percent
        ),
    };
    Refusal::client(
        "InvalidAMIID.Unavailable",
        format!("The image ID '{}' is not available. It {state}", image.reserved),
    )
}

/// Writes `to` for every `from` that stands alone in `text`.
pub(super) fn renamed(text: &str, from: &str, to: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let alone = !before.ends_with(|char: char| char.is_ascii_alphanumeric())
            && !after.starts_with(|char: char| char.is_ascii_alphanumeric());
        written.push_str(before);
        written.push_str(if alone { to } else { from });
        rest = after;
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_renamed_where_it_stands_alone() {
        let text = "<a>ami-1</a>/ami-1.bin ami-12 xami-1 ami-1";
        assert_eq!(renamed(text, "ami-1", "ami-2"), "<a>ami-2</a>/ami-2.bin ami-12 xami-1 ami-2");
    }
}
