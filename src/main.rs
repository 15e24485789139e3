//! The `amistore` program.

fn main() -> std::process::ExitCode {
    // A panic is a defect; the hook has said where. Its exit code is that of an internal error, as
    // documented.
    std::panic::catch_unwind(amistore::run_command_line).unwrap_or(std::process::ExitCode::from(1))
}
