//! Any other program that a test runs beside the servers: amibus itself.

use std::ops::{Deref, DerefMut};

use crate::process::Process;

/// A running program, killed when dropped or when the test process ends. Its other operations are those of
/// [`Process`].
#[derive(Debug)]
pub struct Program {
    process: Process,
}

impl Program {
    /// Prepares a program: its directory and its ports are there, and nothing runs yet.
    #[must_use]
    pub fn prepare(name: &'static str) -> Self {
        Self { process: Process::prepare(name) }
    }

    /// Starts `command` (program and arguments) and waits until `ready` says yes.
    ///
    /// # Panics
    /// Where it ends before, or is not ready within `seconds`.
    pub fn start(&mut self, command: Vec<String>, seconds: u64, ready: impl FnMut(&Process) -> bool) {
        self.process.start(command, seconds, ready);
    }

    /// Starts the same command again, in the same directory; stops it first if it runs.
    ///
    /// # Panics
    /// As for [`Program::start`].
    pub fn restart(&mut self, seconds: u64, ready: impl FnMut(&Process) -> bool) {
        self.process.restart(seconds, ready);
    }
}

impl Deref for Program {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Program {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
