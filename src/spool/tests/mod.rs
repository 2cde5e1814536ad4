//! The spool on a filesystem that forgets ([`crash`]), with spoilt bytes ([`damage`]), on a disk that stalls or is full
//! ([`stall`]), and on the real one ([`lanes`]). `PROPTEST_CASES=20000` tries more.

mod crash;
mod damage;
mod format;
mod lanes;
mod model;
mod rig;
mod slow;
mod stall;
