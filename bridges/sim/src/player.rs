//! Plays recordings, each in a task of its own.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};

use crate::channel_actions;
use crate::options::clamp_speed;
use crate::recording::{Began, NameKind, Recording};
use crate::world::{State, World};

/// After so many events without a pause, others get their turn.
const YIELD_EVERY: usize = 64;
const CAUSE_NORMAL_CLEARING: u16 = 16;

/// Starts a player for each recording of the options; they end with this boot.
pub(crate) fn start_all(world: &Arc<World>) {
    let boot = world.lock().boot.clone();
    for recording in world.options.play.clone() {
        let (world, boot) = (Arc::clone(world), boot.clone());
        tokio::spawn(async move { boot.run_until_cancelled(play_as_set(&world, &recording)).await });
    }
}

async fn play_as_set(world: &Arc<World>, recording: &Recording) {
    let mut audience = world.audience.subscribe();
    if audience.wait_for(|count| *count > 0).await.is_err() {
        return;
    }
    loop {
        play(world, recording, world.options.pace()).await;
        if !world.options.loop_play {
            return;
        }
        sleep(world.options.loop_pause.div_f64(world.options.pace())).await;
    }
}

/// One round: every event of the recording in its order. Returns how many were published.
pub(crate) async fn play(world: &World, recording: &Recording, speed: f64) -> u64 {
    let speed = clamp_speed(speed);
    let (names, began) = {
        let mut state = world.lock();
        let fresh = world.options.rebase_time;
        let names = if fresh { fresh_names(&mut state, recording) } else { recording.recorded_names() };
        names.iter().for_each(|name| state.floor.begin(name));
        let began = fresh.then(|| Began { second: state.now_micros() / 1_000_000, speed });
        (names, began)
    };
    let start = Instant::now();
    let mut published = 0;
    for (index, recorded) in recording.events.iter().enumerate() {
        let due = start + recorded.offset.div_f64(speed);
        if due > Instant::now() {
            sleep_until(due).await;
        } else if index % YIELD_EVERY == 0 {
            tokio::task::yield_now().await;
            world.room().await;
        }
        world.running().await;
        let event = recorded.render(&names, began);
        let linkedid = recorded.linkedid.and_then(|index| names.get(index)).map_or("", String::as_str);
        published += u64::from(world.publish_within(&event, linkedid));
    }
    hang_up_what_is_left(world, recording, &names);
    published
}

/// A recording that was cut off leaves channels up; nobody else would ever end them.
fn hang_up_what_is_left(world: &World, recording: &Recording, names: &[String]) {
    for (name, fresh) in recording.names.iter().zip(names) {
        let left = match name.kind {
            NameKind::Unique => world.lock().floor.by_uniqueid(fresh).map(|channel| channel.linkedid.clone()),
            _ => None,
        };
        if let Some(linkedid) = left {
            channel_actions::end_call(world, &linkedid, CAUSE_NORMAL_CLEARING);
        }
    }
}

fn fresh_names(state: &mut State, recording: &Recording) -> Vec<String> {
    let fresh = |name: &crate::recording::Name| match name.kind {
        NameKind::Unique => state.fresh_uniqueid(),
        NameKind::Bridge => state.fresh_bridge(),
        NameKind::Channel => {
            let base = name.text.rsplit_once('-').map_or(name.text.as_str(), |(base, _)| base);
            format!("{base}-{}", state.fresh_channel_number())
        }
        NameKind::Call => format!("[C-{}]", state.fresh_channel_number()),
    };
    recording.names.iter().map(fresh).collect()
}
