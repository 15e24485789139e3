//! Ctrl-C and SIGTERM: the first asks the operation to stop and clean up, the second ends the
//! process at once.

use crate::base::{Cancel, Error, ErrorKind, Result};

/// Connects the signals with `cancel`.
pub(super) fn listen(cancel: &Cancel) -> Result<()> {
    let cancel = cancel.clone();
    ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()));
        }
        cancel.cancel();
    })
    .map_err(|cause| Error::internal("cannot listen for interrupts").because(cause))
}
