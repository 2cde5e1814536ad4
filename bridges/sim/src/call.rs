//! The call that follows an Originate, event by event as a real one on Local or other channels.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::event::{Event, push_line};
use crate::originate::{CALLS_MAX, Order, Originated, Then};
use crate::snapshot::{ChannelState, Leg, escape, unknown_if_empty};
use crate::world::World;

/// What becomes of a call: the `Reason` of OriginateResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    Busy,
    Congestion,
    NoAnswer,
    Failed,
}

impl Fate {
    fn of_target(channel: &str) -> Self {
        let target = channel.to_ascii_lowercase();
        let marks = [
            ("busy", Self::Busy),
            ("congestion", Self::Congestion),
            ("noanswer", Self::NoAnswer),
            ("fail", Self::Failed),
        ];
        marks.iter().find(|(mark, _)| target.contains(mark)).map_or(Self::Answered, |(_, fate)| *fate)
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Answered => "4",
            Self::Busy => "5",
            Self::Congestion => "8",
            Self::NoAnswer => "3",
            Self::Failed => "0",
        }
    }
}

/// Gives the place among the live calls and the claim on the ChannelId back, in the boot that gave them.
struct Slot {
    world: Arc<World>,
    boot: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.world.lock();
        if state.stats.boots == self.boot {
            state.live_calls = state.live_calls.saturating_sub(1);
        }
    }
}

struct Call {
    slot: Slot,
    order: Order,
    one: Leg,
    /// The far half of a Local channel.
    two: Option<Leg>,
}

/// Keeps the Originate for the test to see, and dials unless its ChannelId belongs to a live channel.
/// `answered` tells whether the call was answered.
pub(crate) fn start(world: &Arc<World>, order: Order, answered: oneshot::Sender<bool>) {
    let (call, boot) = {
        let mut state = world.lock();
        let id = order.channel_id.as_deref().unwrap_or_default();
        let live = !id.is_empty()
            && (state.floor.by_uniqueid(id).is_some()
                || state.claimed_ids.iter().any(|claimed| claimed == id));
        let uniqueid = order.channel_id.clone().unwrap_or_else(|| state.fresh_uniqueid());
        state.keep_originate(Originated {
            action_id: order.action_id.clone(),
            channel: order.channel.clone(),
            channel_id: order.channel_id.clone(),
            uniqueid: uniqueid.clone(),
            variables: order.variables.clone(),
            asynchronous: order.asynchronous,
            dialled: !live,
            at: SystemTime::now(),
        });
        if live || state.live_calls >= CALLS_MAX || Fate::of_target(&order.channel) == Fate::Failed {
            drop(state);
            respond(world, &order, Fate::Failed, None);
            let _ = answered.send(false);
            return;
        }
        state.live_calls += 1;
        state.claimed_ids.push(uniqueid.clone());
        let (one, two) = legs(&mut state, world, &order, uniqueid);
        let slot = Slot { world: Arc::clone(world), boot: state.stats.boots };
        (Call { slot, order, one, two }, state.boot.clone())
    };
    tokio::spawn(async move { boot.run_until_cancelled(call.run(answered)).await });
}

fn legs(
    state: &mut crate::world::State,
    world: &World,
    order: &Order,
    uniqueid: String,
) -> (Leg, Option<Leg>) {
    let number = state.fresh_channel_number();
    let (technology, target) = order.channel.split_once('/').unwrap_or(("Local", &order.channel));
    let target = target.split('/').next().unwrap_or(target);
    let local = technology.eq_ignore_ascii_case("Local");
    let (exten, context) = target.split_once('@').unwrap_or(("s", "default"));
    let name = format!("{technology}/{target}-{number}");
    let shown = |name: &String| {
        if name == "CALLERID(num)" {
            return (name.clone(), order.caller_number.clone());
        }
        let value = order.variables.iter().find(|(variable, _)| variable == name);
        (name.clone(), value.map(|(_, value)| value.clone()).unwrap_or_default())
    };
    let one = Leg {
        name: if local { format!("{name};1") } else { name.clone() },
        state: ChannelState::Down,
        caller_number: order.caller_number.clone(),
        caller_name: order.caller_name.clone(),
        connected: true,
        account: order.account.clone(),
        context: context.to_owned(),
        exten: exten.to_owned(),
        linkedid: uniqueid.clone(),
        variables: world.options.channel_variables.iter().map(shown).collect(),
        uniqueid,
    };
    let two = local.then(|| Leg {
        name: format!("{name};2"),
        state: ChannelState::Ring,
        uniqueid: match (&order.other_channel_id, &order.channel_id) {
            (Some(other), _) => other.clone(),
            (None, Some(first)) => format!("{first};2"),
            (None, None) => state.fresh_uniqueid(),
        },
        ..one.clone()
    });
    (one, two)
}

impl Call {
    async fn run(mut self, answered: oneshot::Sender<bool>) {
        let options = &self.slot.world.options;
        let (ring, talk) = (options.ring, options.talk);
        self.begin().await;
        let mut fate = Fate::of_target(&self.order.channel);
        if fate == Fate::NoAnswer || ring >= self.order.timeout {
            fate = Fate::NoAnswer;
        }
        self.ring(if fate == Fate::NoAnswer { self.order.timeout } else { ring }).await;
        if self.slot.world.lock().floor.has_ended(&self.one.linkedid) {
            fate = Fate::Failed;
        }
        match fate {
            Fate::Answered => self.answer(),
            other => self.fail(other),
        }
        let _ = answered.send(fate == Fate::Answered);
        if fate == Fate::Answered {
            sleep(talk).await;
            self.slot.world.running().await;
            self.hang_up();
        }
        self.forget_variables();
    }

    async fn begin(&self) {
        self.slot.world.running().await;
        self.say(&self.one.blank().event("Newchannel"));
        {
            let mut state = self.slot.world.lock();
            let claimed = &self.one.uniqueid;
            state.claimed_ids.retain(|id| id != claimed);
            for (name, value) in &self.order.variables {
                if state.variables.len() < crate::channel_actions::VARIABLES_MAX {
                    state.variables.insert((self.one.name.clone(), name.clone()), value.clone());
                }
            }
        }
        if let Some(two) = &self.two {
            self.say(&two.blank().event("Newchannel"));
        }
        self.newexten("AppDial2", "(Outgoing Line)");
        for (name, value) in &self.order.variables {
            let event = self.one.event_of("VarSet", "dialplan,all");
            self.say(&event.line("Variable", name).line("Value", &escape(value)));
        }
        if !self.order.caller_number.is_empty() || !self.order.caller_name.is_empty() {
            let presentation = "0 (Presentation Allowed, Not Screened)";
            let unconnected = Leg { connected: false, ..self.one.clone() };
            self.say(&unconnected.event("NewCallerid").line("CID-CallingPres", presentation));
            self.say(&self.one.event("NewConnectedLine"));
        }
        if let Some(two) = &self.two {
            self.say(&local_bridge(&self.one, two));
        }
        self.say(&self.dest("DialBegin").line("DialString", self.dial_string()));
    }

    async fn ring(&mut self, wait: Duration) {
        self.one.state = ChannelState::Ringing;
        self.say(&self.one.event("Newstate"));
        self.say(&self.dest("DialState").line("DialStatus", "RINGING"));
        sleep(wait).await;
        self.slot.world.running().await;
    }

    fn answer(&mut self) {
        self.one.state = ChannelState::Up;
        if let Some(two) = &mut self.two {
            two.state = ChannelState::Up;
        }
        if let Some(two) = &self.two {
            self.say(&two.event("Newstate"));
        }
        self.say(&self.one.event("Newstate"));
        self.say(&self.dest("DialEnd").line("DialStatus", "ANSWER"));
        self.outcome(Fate::Answered);
        match &self.order.then {
            Then::Application { name, data } => self.newexten(name, data),
            Then::Dialplan { context, exten } => {
                self.one.context.clone_from(context);
                self.one.exten.clone_from(exten);
                self.newexten("Wait", "1");
            }
        }
    }

    fn fail(&mut self, fate: Fate) {
        let (status, far_cause) = match fate {
            Fate::Busy => ("BUSY", "17"),
            Fate::Congestion => ("CONGESTION", "34"),
            _ => ("", "0"),
        };
        if fate == Fate::Busy
            && let Some(two) = &mut self.two
        {
            two.state = ChannelState::Busy;
            let newstate = two.event("Newstate");
            self.say(&newstate);
        }
        if !status.is_empty() {
            self.say(&self.dest("DialEnd").line("DialStatus", status));
        }
        // As measured: only the far half knows the cause, the near one of a Local channel says 0.
        let near_cause = if self.two.is_some() { "0" } else { far_cause };
        self.say(&hangup(&self.one, near_cause));
        self.outcome(fate);
        if let Some(two) = &self.two {
            self.say(&hangup(two, far_cause));
        }
    }

    fn hang_up(&self) {
        if let Some(two) = &self.two {
            self.say(&two.event("HangupRequest").line("Cause", "16"));
            self.say(&hangup(two, "16"));
        }
        self.say(&hangup(&self.one, "16"));
    }

    fn outcome(&self, fate: Fate) {
        if self.order.asynchronous {
            respond(&self.slot.world, &self.order, fate, Some(&self.one));
        }
    }

    fn newexten(&self, application: &str, data: &str) {
        let event = self.one.event_of("Newexten", "dialplan,all").line("Extension", &self.one.exten);
        self.say(&event.line("Application", application).line("AppData", data));
    }

    fn dest(&self, name: &str) -> Event {
        let mut event = Event::new(name, "call,all");
        self.one.write("Dest", &mut event.body);
        event
    }

    fn dial_string(&self) -> &str {
        self.order.channel.split_once('/').map_or("", |(_, target)| target)
    }

    /// Publishes, unless a Hangup action has ended the call.
    fn say(&self, event: &Event) {
        self.slot.world.publish_within(event, &self.one.linkedid);
    }

    fn forget_variables(&self) {
        let mut state = self.slot.world.lock();
        for (name, _) in &self.order.variables {
            state.variables.remove(&(self.one.name.clone(), name.clone()));
        }
    }
}

/// OriginateResponse, with the words of `fast_originate` in main/manager.c. `leg` is the channel, if there was one.
fn respond(world: &World, order: &Order, fate: Fate, leg: Option<&Leg>) {
    if !order.asynchronous {
        return;
    }
    let answered = leg.filter(|_| fate == Fate::Answered);
    let mut event = Event::new("OriginateResponse", "call,all");
    if !order.action_id.is_empty() {
        event = event.line("ActionID", &order.action_id);
    }
    event = event.line("Response", if answered.is_some() { "Success" } else { "Failure" });
    event = event.line("Channel", answered.map_or(order.channel.as_str(), |leg| &leg.name));
    event = match &order.then {
        Then::Application { name, data } => event.line("Application", name).line("Data", data),
        Then::Dialplan { context, exten } => event.line("Context", context).line("Exten", exten),
    };
    let uniqueid = answered.map(|leg| leg.uniqueid.as_str()).or(order.channel_id.as_deref());
    event = event
        .line("Reason", fate.reason())
        .line("Uniqueid", uniqueid.unwrap_or("<unknown>"))
        .line("CallerIDNum", unknown_if_empty(&order.caller_number))
        .line("CallerIDName", unknown_if_empty(&order.caller_name));
    if let Some(leg) = answered {
        for (name, value) in &leg.variables {
            push_line(&mut event.body, &format!("ChanVariable({})", leg.name), &format!("{name}={value}"));
        }
    }
    world.publish(&event);
}

fn hangup(leg: &Leg, cause: &str) -> Event {
    let text = crate::channel_actions::cause_text(cause.parse().unwrap_or_default());
    leg.event("Hangup").line("Cause", cause).line("Cause-txt", text)
}

fn local_bridge(one: &Leg, two: &Leg) -> Event {
    let mut event = Event::new("LocalBridge", "call,all");
    one.write("LocalOne", &mut event.body);
    two.write("LocalTwo", &mut event.body);
    event.line("Context", &one.context).line("Exten", &one.exten).line("LocalOptimization", "Yes")
}
