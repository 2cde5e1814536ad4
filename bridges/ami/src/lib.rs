//! The Asterisk Manager Interface (AMI), sans-IO: bytes and instants in, bytes and values out.
//!
//! Nothing here opens a socket, reads a clock, draws randomness or sleeps; a driver does that and
//! hands in what came of it. That is why every rule of the protocol is tested in virtual time, on
//! recorded bytes.
//!
//! | module | idea |
//! |---|---|
//! | [`decoder`] | where a message begins and ends in the bytes of a connection |
//! | [`frame`] | one message, borrowed: what it is, and its header lines |
//! | [`limits`] | the bound of everything that a server could make grow |

pub mod decoder;
pub mod frame;
pub mod limits;

pub use decoder::{Decoded, Decoder, FrameError, Tail};
pub use frame::{Frame, Header, Headers, Kind, OwnedFrame, Separator};
pub use limits::Limits;
