//! One file for each group of options: the options as clap parses them, and their conversion to
//! checked settings. Every error of an option is found here.

#![allow(rustdoc::invalid_html_tags, reason = "clap prints these texts to terminals")]

mod access;
mod archive_url;
mod ec2;
mod edits;
mod global;
mod image;
mod made;
mod object;
mod requests;
mod state;
mod thaw;
mod values;
mod write;

pub(super) use access::AccessArgs;
pub(super) use archive_url::{ArchiveUrl, archive_target, refuse_same_file};
pub(super) use ec2::{EbsArgs, Ec2Args};
pub(super) use edits::EditArgs;
pub(super) use global::{GlobalArgs, OutputForm, ProgressForm, Settings};
pub(super) use image::ImageArgs;
pub(super) use made::MadeArgs;
pub(super) use object::ObjectArgs;
pub(super) use requests::{AwsArgs, Requests, SidesArgs};
pub(super) use state::{ResumeArgs, StateArgs, command_line};
pub(super) use thaw::ThawArgs;
pub(super) use values::{parse_age, parse_percent, parse_range};
pub(super) use write::WriteArgs;
