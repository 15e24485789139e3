//! The words of EC2's Query protocol: a form goes out, XML comes back.
//!
//! Requests are [`Params`], encoded as a form. Answers become JSON with the member names that the
//! AWS CLI prints ([`answer()`]), which are those of `image.json`; a member that this
//! version does not know is kept under the name it would have. Failures become a [`ServiceError`].
//! Who answers instead of asking writes with [`Xml`] and [`refusal()`].
//!
//! Everything here takes what a stranger sent: no input panics, none makes memory grow beyond the
//! stated limits, and no external entity exists. It does not know operations' parameters, it does
//! not sign, and it does no I/O.
//!
//! The XML is read with `xmlparser`, a tokenizer without dependencies and without `unsafe` that the
//! S3 client is built on anyway. What it leaves to its caller (whether
//! tags match, entities, limits) is in one file, `xml.rs`.

mod answer;
mod error;
mod form;
mod shapes;
mod write;
mod xml;

pub use answer::answer;
pub use error::ServiceError;
pub use form::{MAX_FORM_BYTES, MAX_FORM_PARAMS, Params, VERSION};
pub use write::{Xml, refusal};
pub use xml::{MAX_ANSWER_BYTES, MAX_DEPTH, MAX_ELEMENTS};
