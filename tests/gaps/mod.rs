//! What was not seen is announced: holes in the numbers, disconnects, kills in between; and how state is corrected.

mod real;
mod rig;
mod simulated;
