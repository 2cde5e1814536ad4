//! The `amibus` program.

use std::process::ExitCode;

/// An event lives in many small pieces of memory that one thread takes and another gives back.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    amibus::cli::main()
}
