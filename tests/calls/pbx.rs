//! The real Asterisk: it writes down each call that it runs, and amibus reaches it over a wire that is listened to.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use amibus_services::{Asterisk, AsteriskOptions, Version};

use super::judge::Call;
use super::proxy::Proxy;
use super::wiretap::Wiretap;

/// The far end of a call that lasts `EXTEN` seconds writes a line at its begin and one at its end, by a dialplan
/// function that opens, writes and closes the file in the call's own thread: what ran is written, and a kill takes
/// nothing of it back.
const DIALPLAN: &str = "\
[calls]
exten => _X.,1,Set(FILE(/srv/amibus/calls.log,,,al,u)=B ${CMD_ID} ${UNIQUEID} ${CHANNEL} ${STRFTIME(,,%s.%6q)})
 same => n,Answer()
 same => n,Wait(${EXTEN:1})
 same => n,Hangup()
exten => leg,1,Wait(3600)
exten => h,1,GotoIf($[\"${CMD_ID}\"=\"\" | \"${UNIQUEID:-2}\"!=\"\\;2\"]?done)
 same => n,Set(FILE(/srv/amibus/calls.log,,,al,u)=E ${CMD_ID} ${UNIQUEID} ${CHANNEL} ${STRFTIME(,,%s.%6q)})
 same => n(done),NoOp()
";

/// One Asterisk and the wire to it.
pub(super) struct Pbx {
    pub(super) asterisk: Asterisk,
    pub(super) wire: Proxy,
    pub(super) tap: Arc<Wiretap>,
}

impl Pbx {
    pub(super) fn start(version: Version) -> Self {
        let options = AsteriskOptions { dialplan: DIALPLAN.to_owned(), ..AsteriskOptions::default() };
        let asterisk = Asterisk::start(version, &options);
        let tap = Arc::new(Wiretap::default());
        let wire = Proxy::start(Some(tap.clone()));
        wire.lead_to(asterisk.ami_port());
        Self { asterisk, wire, tap }
    }

    /// All calls that it ran, over all its lives.
    ///
    /// # Panics
    /// Where a line is not one: then the dialplan is wrong.
    pub(super) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let mut calls: Vec<Call> = Vec::new();
        let mut begun: HashMap<(&str, &str), usize> = HashMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [kind, command, unique, channel, time] = words[..] else {
                panic!("not a line of the dialplan: {line:?}");
            };
            let at = micros(time).unwrap_or_else(|| panic!("not a time: {line:?}"));
            match kind {
                "B" => {
                    begun.insert((unique, channel), calls.len());
                    calls.push(Call { command: command.to_owned(), at, until: None });
                }
                _ => match begun.remove(&(unique, channel)) {
                    Some(call) => calls[call].until = Some(at),
                    // Asterisk was so late with its first step that it was hung up before.
                    None => calls.push(Call { command: command.to_owned(), at, until: Some(at) }),
                },
            }
        }
        calls
    }

    fn log(&self) -> PathBuf {
        self.asterisk.directory().join("calls.log")
    }
}

fn micros(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + format!("{fraction:0<6}").get(..6)?.parse::<u64>().ok()?)
}
