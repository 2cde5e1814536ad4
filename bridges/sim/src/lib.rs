//! A simulated Asterisk: it plays recorded calls, answers actions, dials, and fails on demand.
//!
//! It serves `amibus demo`, which must run with nothing installed, and the tests of speed, determinism and
//! faults, which a real Asterisk cannot be made to show at will. It writes literal bytes and shares no code
//! with the AMI client it is used to test, so that one misunderstanding cannot hide in both.
//!
//! | file | idea |
//! |---|---|
//! | `sim` | the handle: start, look at what Asterisk saw |
//! | `options` | what can be set |
//! | `world` | what all sessions share: the order of events, their numbers, who receives them |
//! | `listener`, `session`, `outbox` | the door, one connection, its one writer |
//! | `wire` | bytes from a client to actions, with Asterisk's own limits |
//! | `actions`, `login`, `lists`, `channel_actions`, `reply` | what is answered |
//! | `originate`, `call`, `snapshot` | Originate, and the call that follows |
//! | `recording`, `embedded`, `player`, `floor` | recorded calls, and which channels and bridges are up |
//! | `event`, `classes`, `clock` | how an event is written |
//! | `faults`, `flood`, `pour` | what goes wrong on demand, and load |
//!
//! Behaviour follows what was measured on Asterisk 22.10.1 and 16.28.0.

mod actions;
mod call;
mod channel_actions;
mod classes;
mod clock;
mod embedded;
mod event;
mod faults;
mod flood;
mod floor;
mod listener;
mod lists;
mod login;
mod options;
mod originate;
mod outbox;
mod player;
mod pour;
mod recording;
mod reply;
mod session;
mod sim;
mod snapshot;
mod wire;
mod world;

pub use faults::Door;
pub use flood::{Flood, Flooded, Numbered};
pub use options::{SimOptions, User};
pub use originate::Originated;
pub use recording::{RECORDING_BYTES_MAX, Recording, RecordingError};
pub use sim::Sim;
pub use world::Stats;
