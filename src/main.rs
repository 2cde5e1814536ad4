//! The `amibus` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    amibus::cli::main()
}
