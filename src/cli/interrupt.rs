//! Ctrl-C and SIGTERM: the first asks the operation to stop and clean up, the second ends the
//! process at once. A file that reaches the largest allowed size ends nothing.

use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

use crate::base::{Cancel, Error, ErrorKind, Result};

/// Connects the signals with `cancel`.
pub(super) fn listen(cancel: &Cancel) -> Result<()> {
    let failed = |cause: std::io::Error| Error::io("cannot listen for interrupts", cause);
    // A write beyond the largest size of a file (`ulimit -f`) is an error and not the end of the
    // process.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let cancel = cancel.clone();
    ctrlc::set_handler(move || {
        if cancel.is_cancelled() {
            std::process::exit(i32::from(ErrorKind::Interrupted.exit_code()));
        }
        cancel.cancel();
    })
    .map_err(|cause| match cause {
        // No thread is left.
        ctrlc::Error::System(cause) => failed(cause),
        cause => Error::internal("cannot listen for interrupts").because(cause),
    })
}
