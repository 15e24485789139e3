//! EC2's Query protocol: requests are forms, answers are XML.
//!
//! A client encodes [`Params`] as a form. An answer becomes JSON with the member names of the AWS
//! CLI ([`answer()`]), which are those of `image.json`; a member that this version does not know
//! stays, under the name by the same rule. A failure becomes a [`ServiceError`]. A server writes
//! its answers with [`Xml`] and [`refusal()`].
//!
//! All input is untrusted: no input panics, none takes more memory than the stated limits, and
//! there are no external entities. It does not know the parameters of operations, does not sign,
//! and does no I/O.

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
