//! The spool on a filesystem that forgets ([`crash`]), with spoilt bytes ([`damage`]), on a disk that stalls or is full
//! ([`stall`]), and on the real one ([`lanes`]); and the threads that many share ([`pool`], [`shared`]). `PROPTEST_CASES=20000` tries more.

mod crash;
mod damage;
mod format;
mod lanes;
mod model;
mod pool;
mod rig;
mod shared;
mod slow;
mod stall;
