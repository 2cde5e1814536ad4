//! `amibus completions`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, Failure, output};

/// Print completions for a shell
///
/// For bash: amibus completions bash > /etc/bash_completion.d/amibus
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "amibus", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
