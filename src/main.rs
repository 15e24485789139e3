//! The `amistore` program.

fn main() -> std::process::ExitCode {
    amistore::cli::main()
}
