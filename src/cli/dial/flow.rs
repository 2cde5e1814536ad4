//! A batch on its way: rows out, responses in, until all have ended or somebody stops it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    task::JoinSet,
};

use super::{
    results::Results,
    state::State,
    tasks::{self, Input, Job, Way},
    view::View,
};
use crate::cli::{Failure, bus::Found, signals::Signals};

/// Inputs that wait to be taken.
const MAX_INPUTS: usize = 1024;
/// How often the view is shown anew.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// How long nothing may come back before the row that has been out for longest is asked for again.
const QUIET: Duration = Duration::from_secs(60);

/// A batch, and where its results go.
pub(super) struct Flow<'a> {
    pub(super) state: &'a mut State,
    pub(super) results: &'a mut Results,
    pub(super) view: &'a mut View,
    pub(super) deadline: Timestamp,
}

impl Flow<'_> {
    /// Publishes what has not ended, and waits for what became of it, until all have ended or somebody stops it.
    ///
    /// # Errors
    /// Where the bus refuses for good, or a result cannot be written.
    pub(super) async fn run(&mut self, found: &Found, with_events: bool) -> Result<(), Failure> {
        let failed = |fault| Failure::Failed(format!("cannot dial through {}: {fault}", found.bus.name));
        let signals =
            Signals::new().map_err(|error| Failure::Failed(format!("cannot hear signals: {error}")))?;
        let mut client = found.client().await?;
        let replies = client.replies(&found.prefix).await.map_err(failed)?;
        let (tell, mut inputs) = mpsc::channel(MAX_INPUTS);
        let (jobs, taken) = mpsc::channel(1);
        let way = Way {
            client,
            prefix: found.prefix.clone(),
            batch: self.state.batch.name.clone(),
            reply_to: replies.address,
        };
        let mut beside = JoinSet::new();
        let address = way.reply_to.clone();
        beside.spawn(tasks::publish(way, taken, tell.clone()));
        beside.spawn(tasks::responses(replies.feed, address, tell.clone()));
        beside.spawn(tasks::signals(signals, tell.clone()));
        if with_events {
            let server = self.state.batch.only_server();
            beside.spawn(tasks::events(found.clone(), server, tell));
        }
        self.follow(&jobs, &mut inputs, found).await
    }

    async fn follow(
        &mut self,
        jobs: &Sender<Job>,
        inputs: &mut Receiver<Input>,
        found: &Found,
    ) -> Result<(), Failure> {
        let mut ticks = tokio::time::interval(SHOW_EVERY);
        let mut heard = Instant::now();
        while !self.state.is_over() {
            let has_next = self.state.has_next();
            tokio::select! {
                biased;
                input = inputs.recv() => match input {
                    Some(Input::Leave) => return Ok(()),
                    Some(input) => {
                        let out = self.state.out();
                        self.take(input, found)?;
                        // Responses to others do not count.
                        if self.state.out() != out {
                            heard = Instant::now();
                        }
                    }
                    None => return Ok(()),
                },
                _ = ticks.tick() => {
                    self.view.show(self.state);
                    if self.state.out() > 0 && heard.elapsed() >= QUIET {
                        heard = Instant::now();
                        self.state.ask_oldest();
                        self.view.say("nothing has come back for a minute: is an amibus running that takes commands \
                                       for this server from this bus, and does the pace let calls through?");
                    }
                }
                permit = jobs.reserve(), if has_next => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if self.state.out() == 0 {
                        heard = Instant::now();
                    }
                    if let Some(job) = self.next() {
                        permit.send(job);
                    }
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Job> {
        let index = self.state.next()?;
        // Every row was looked at before.
        let call = self.state.batch.call(index).ok()?;
        let body = call.body(self.deadline);
        Some(Job { index, id: call.id, server: call.server, body })
    }

    fn take(&mut self, input: Input, found: &Found) -> Result<(), Failure> {
        let bus = found.bus.name;
        let seen = || format!("{:.3}", Timestamp::now());
        let line = match input {
            Input::Response { body, to_us } => self.state.response(&body, to_us, seen()),
            Input::Refused(index, fault) => self.state.refused(index, &fault, seen()),
            Input::Missed => {
                self.state.missed();
                self.view.say(&format!("{bus} is back; what was out and does not come is asked for again"));
                None
            }
            Input::Seen(channel, stage) => {
                self.state.seen(&channel, stage);
                None
            }
            Input::Trouble(fault) => {
                self.view.say(&format!("{bus} takes no commands: {fault}; trying again"));
                None
            }
            Input::Broken(fault) => {
                return Err(Failure::Failed(format!("cannot dial through {bus}: {fault}")));
            }
            Input::Stop => {
                self.state.stopping = true;
                let out = self.state.out();
                self.view.say(&format!(
                    "stopping: no new calls, waiting for the {out} that are out; once more to leave at once"
                ));
                None
            }
            Input::Leave => None,
        };
        line.map_or(Ok(()), |line| self.results.write(&line))
    }
}
