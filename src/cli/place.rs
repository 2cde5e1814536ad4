//! Where amibus keeps what it must not lose, for the commands that look at it.

use std::path::PathBuf;

use super::{Failure, bus::DEFAULT_FILE};
use crate::config::Config;

/// The folder `spool.dir`.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The configuration, for `spool.dir`
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// `spool.dir` itself; no configuration is read
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    /// The folder, from the arguments or from the configuration.
    pub(super) fn dir(&self) -> Result<PathBuf, Failure> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(Config::load(&self.config)?.spool.dir),
        }
    }
}
