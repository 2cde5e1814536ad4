//! Load: bytes of events that somebody else has made ready, passed on just as they are.

use bytes::Bytes;

use crate::classes::ALL;
use crate::world::World;

/// Queues whole events to every session that wants any, once these have room. A reader that is merely slow slows this
/// down; one that does not read is dropped by its write timeout.
pub(crate) async fn pour(world: &World, events: &Bytes, count: u64) {
    world.running().await;
    world.room().await;
    let mut state = world.lock();
    state.stats.events += count;
    state.spread(events, ALL);
}
