//! What a configuration means, and what it meets out there: `amibus check`.
//!
//! | module | idea |
//! |---|---|
//! | [`pace`] | limits in plain words |
//! | [`rules`] | rules in plain words, and what is dangerous about them |
//! | [`server`] | what an AMI user cannot see or do, asked of the real server |
//! | [`privileges`] | how Asterisk's answers to that are read |

pub mod pace;
pub mod privileges;
pub mod rules;
pub mod server;

/// One finding, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be, or simply so.
    Fine(String),
    /// It works, and somebody should know something.
    Warning(String),
    /// It does not work.
    Failed(String),
}

impl Finding {
    /// Whether this is a failure.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
