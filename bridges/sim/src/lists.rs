//! What the server tells about itself, its channels, its bridges and its one queue.

use crate::clock;
use crate::event::push_line;
use crate::reply::Reply;
use crate::wire::Action;
use crate::world::World;

const QUEUE: &str = "support";
const MEMBERS: &[(&str, &str)] =
    &[("Agent One", "Local/a1@agents/n"), ("Agent Two: the second", "Local/a2@agents/n")];

pub(crate) fn core_status(world: &World, action: &Action) -> Vec<u8> {
    let state = world.lock();
    let (date, time) = clock::date_and_time(state.booted_at_second);
    Reply::new("Success", action)
        .line("CoreStartupDate", &date)
        .line("CoreStartupTime", &time)
        .line("CoreReloadDate", &date)
        .line("CoreReloadTime", &time)
        .line("CoreCurrentCalls", &state.floor.channels().len().to_string())
        .line("CoreProcessedCalls", &state.floor.processed_calls().to_string())
        .end()
}

pub(crate) fn core_settings(world: &World, action: &Action) -> Vec<u8> {
    Reply::new("Success", action)
        .line("AMIversion", &world.options.version_banner)
        .line("AsteriskVersion", &world.options.asterisk_version)
        .line("SystemName", "")
        .line("CoreMaxCalls", "0")
        .line("CoreMaxLoadAvg", "0.000000")
        .line("CoreRunUser", "")
        .line("CoreRunGroup", "")
        .line("CoreMaxFilehandles", "20000")
        .line("CoreRealTimeEnabled", "No")
        .line("CoreCDRenabled", "Yes")
        .line("CoreHTTPenabled", "No")
        .line("SoundsSearchCustomDir", "No")
        .end()
}

pub(crate) fn channels(world: &World, action: &Action) -> Vec<u8> {
    let state = world.lock();
    let mut reply = Reply::list(action, "Channels will follow");
    for channel in state.floor.channels() {
        let up = channel.since.elapsed().as_secs();
        let duration = format!("{:02}:{:02}:{:02}", up / 3600, up / 60 % 60, up % 60);
        let mut lines = channel.snapshot.clone();
        push_line(&mut lines, "Application", &channel.application);
        push_line(&mut lines, "ApplicationData", &channel.application_data);
        push_line(&mut lines, "Duration", &duration);
        push_line(&mut lines, "BridgeId", &channel.bridge);
        reply = reply.item("CoreShowChannel", &lines);
    }
    reply.complete("CoreShowChannelsComplete")
}

pub(crate) fn bridges(world: &World, action: &Action) -> Vec<u8> {
    let state = world.lock();
    let start = Reply::list(action, "Bridge listing will follow");
    state
        .floor
        .bridges()
        .fold(start, |reply, lines| reply.item("BridgeListItem", lines))
        .complete("BridgeListComplete")
}

pub(crate) fn queue_status(world: &World, action: &Action) -> Vec<u8> {
    let mut reply = Reply::list(action, "Queue status will follow");
    if action.text("Queue").is_some_and(|wanted| wanted != QUEUE) {
        return reply.complete("QueueStatusComplete");
    }
    let since = world.lock().booted_at_second.to_string();
    reply = reply.queue_item(
        "QueueParams",
        &[
            ("Queue", QUEUE),
            ("Max", "5"),
            ("Strategy", "ringall"),
            ("Calls", "0"),
            ("Holdtime", "0"),
            ("TalkTime", "0"),
            ("Completed", "0"),
            ("Abandoned", "0"),
            ("ServiceLevel", "10"),
            ("ServicelevelPerf", "0.0"),
            ("ServicelevelPerf2", "0.0"),
            ("Weight", "0"),
        ],
    );
    for (name, location) in MEMBERS {
        reply = reply.queue_item(
            "QueueMember",
            &[
                ("Queue", QUEUE),
                ("Name", name),
                ("Location", location),
                ("StateInterface", location),
                ("Membership", "static"),
                ("Penalty", "0"),
                ("CallsTaken", "0"),
                ("LastCall", "0"),
                ("LastPause", "0"),
                ("LoginTime", &since),
                ("InCall", "0"),
                ("Status", "1"),
                ("Paused", "0"),
                ("PausedReason", ""),
                ("Wrapuptime", "0"),
            ],
        );
    }
    reply.complete("QueueStatusComplete")
}

pub(crate) fn queue_summary(action: &Action) -> Vec<u8> {
    let mut reply = Reply::list(action, "Queue summary will follow");
    if action.text("Queue").is_none_or(|wanted| wanted == QUEUE) {
        let members = MEMBERS.len().to_string();
        reply = reply.queue_item(
            "QueueSummary",
            &[
                ("Queue", QUEUE),
                ("LoggedIn", &members),
                ("Available", &members),
                ("Callers", "0"),
                ("HoldTime", "0"),
                ("TalkTime", "0"),
                ("LongestHoldTime", "0"),
            ],
        );
    }
    reply.complete("QueueSummaryComplete")
}

/// `core show channels` on the command line.
pub(crate) fn cli_channels(world: &World) -> Vec<String> {
    let state = world.lock();
    let channels = state.floor.channels();
    let mut output = vec!["Channel              Location             State   Application(Data)".to_owned()];
    output
        .extend(channels.iter().map(|c| format!("{:<20} {}({})", c.name, c.application, c.application_data)));
    output.push(format!("{} active channels", channels.len()));
    output.push(format!("{} calls processed", state.floor.processed_calls()));
    output
}
