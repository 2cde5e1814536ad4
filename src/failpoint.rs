//! Places in a command's way where a test ends the process.
//!
//! `AMIBUS_FAILPOINT=STEP` in the environment ends it the first time that STEP is reached, `AMIBUS_FAILPOINT=STEP:N` the
//! N-th time. It ends as by SIGKILL: nothing is flushed, said or closed. Only in builds with debug assertions or with the
//! feature `failpoints`; in all others there is nothing of this.

/// The steps, in the order in which a command takes them.
///
/// | step | what has just happened |
/// |---|---|
/// | `taken` | a bus handed the command over |
/// | `claimed` | the journal has it as claimed |
/// | `paced` | the server is there, and it is the command's turn |
/// | `shared_claimed` | no other amibus may run it, as far as the bus can tell |
/// | `sending_recorded` | the journal has it as being sent |
/// | `written` | its last byte was handed to the connection |
/// | `answered` | Asterisk's whole answer was read |
/// | `outcome_recorded` | the journal has its outcome |
/// | `published` | the response is in the spool, for every bus |
/// | `replied` | whoever waits was answered |
/// | `acknowledged` | the bus was told that it is done with |
pub const STEPS: [&str; 11] = [
    "taken",
    "claimed",
    "paced",
    "shared_claimed",
    "sending_recorded",
    "written",
    "answered",
    "outcome_recorded",
    "published",
    "replied",
    "acknowledged",
];

#[cfg(any(debug_assertions, feature = "failpoints"))]
pub use armed::{hit, reads};

/// Tells that a step was reached: nothing happens in this build.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline(always)]
pub fn hit(_step: &str) {}

/// Whether a variable of the environment is read here: in this build none is, and whoever sets it is told so.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
pub fn reads(_variable: &str) -> bool {
    false
}

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::{
        io::Write,
        process,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
    };

    use super::STEPS;

    const VARIABLE: &str = "AMIBUS_FAILPOINT";
    /// What a process answers that was told of a step that there is not.
    const NO_SUCH_STEP: i32 = 2;

    /// The step that ends this process, and how often it has yet to be reached for that.
    static ARMED: LazyLock<Option<(&str, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty())?;
        let armed = parse(&text);
        if armed.is_none() {
            say(&format!("{VARIABLE}={text}: one of {}, and from which time on", STEPS.join(", ")));
            process::exit(NO_SUCH_STEP);
        }
        armed.map(|(step, times)| (step, AtomicU64::new(times)))
    });

    /// Tells that a step of [`STEPS`] was reached; ends the process where the environment says so.
    pub fn hit(step: &str) {
        debug_assert!(STEPS.contains(&step), "{step} is not a step");
        let Some((wanted, left)) = &*ARMED else { return };
        if *wanted == step && left.fetch_sub(1, Ordering::AcqRel) == 1 {
            say(&format!("the failpoint {step} ends this process"));
            process::abort();
        }
    }

    /// Whether a variable of the environment is read here.
    pub fn reads(variable: &str) -> bool {
        variable == VARIABLE
    }

    fn parse(text: &str) -> Option<(&'static str, u64)> {
        let (name, times) = match text.split_once(':') {
            Some((name, times)) => (name, times.parse().ok().filter(|times| *times > 0)?),
            None => (text, 1),
        };
        STEPS.into_iter().find(|step| *step == name).map(|step| (step, times))
    }

    /// Past the log, which is written by a thread that may not have its turn any more.
    fn say(words: &str) {
        let _ = writeln!(std::io::stderr(), "{words}");
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_and_a_number_are_read() {
            assert_eq!(parse("written"), Some(("written", 1)));
            assert_eq!(parse("written:3"), Some(("written", 3)));
            for wrong in ["", "writen", "written:", "written:0", "written:-1", "written:x"] {
                assert_eq!(parse(wrong), None, "{wrong}");
            }
        }

        #[test]
        fn nothing_happens_where_nothing_is_armed() {
            STEPS.iter().for_each(|step| hit(step));
        }
    }
}
