//! The real source: a dialplan that counts, and a session of its own that tells how far it got.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amibus_services::{Asterisk, AsteriskOptions, Python, Version};

use super::consumer::script;
use super::judge::{Message, Run, Sent, What};
use super::netns::Way;
use super::rig::{PATIENCE, Source};
use super::wire::Wire;

/// Events between two breaths of the dialplan. Each brings an event of Asterisk's own with it, `Newexten`.
const BURST: u32 = 20;
/// A breath, in seconds: with it, and all of Asterisk's own events, there are somewhat more than 2,000 a second.
const BREATH_SECONDS: &str = "0.010";
/// How far the witness may be behind amibus when Asterisk dies.
const UNWITNESSED_MAX: u64 = 20_000;
const USER: &str = "full";
const SECRET: &str = "full-pass";

/// An Asterisk behind a wire, and its witness.
pub(super) struct Real {
    pub(super) asterisk: Asterisk,
    pub(super) wire: Wire,
    witness: Python,
    file: PathBuf,
    tags: u32,
}

impl Real {
    /// Starts it; with `debug=on` on 22 alone, so that both ways are shown.
    pub(super) fn start(version: Version, way: Option<&Arc<Way>>) -> Self {
        let options = AsteriskOptions {
            debug_seq: version == Version::V22,
            dialplan: dialplan(),
            ..AsteriskOptions::default()
        };
        let asterisk = Asterisk::start(version, &options);
        let wire = Wire::start(way);
        wire.lead_to(asterisk.ami_port());
        let file = asterisk.directory().join("witness.tsv");
        let words = [&asterisk.ami_port().to_string(), USER, SECRET, &file.display().to_string()];
        let witness = Python::spawn(script("witness.py"), &words);
        let this = Self { asterisk, wire, witness, file, tags: 0 };
        this.wait_for_witness();
        this
    }

    /// Where amibus finds it: through the wire.
    pub(super) fn source(&self) -> Source<'static> {
        Source { address: self.wire.address(), user: USER, secret: SECRET }
    }

    /// Waits until the witness has logged in once more. To be called once after each start of Asterisk.
    pub(super) fn wait_for_witness(&self) {
        assert_eq!(self.witness.line(PATIENCE).as_deref(), Some("session"));
    }

    /// Has the dialplan count to `bursts` times [`BURST`], and answers the tag.
    pub(super) fn flood(&mut self, bursts: u32) -> String {
        let tag = format!("run-{}", self.tags);
        self.tags += 1;
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.asterisk.ami_port())).expect("Asterisk listens");
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let actions = format!(
            "Action: Login\r\nUsername: {USER}\r\nSecret: {SECRET}\r\nEvents: off\r\n\r\n\
             Action: Originate\r\nActionID: go\r\nChannel: Local/flood@faults\r\nApplication: Wait\r\nData: 86400\r\n\
             Variable: FLOODN={bursts}\r\nVariable: FLOODTAG={tag}\r\nAsync: true\r\n\r\n"
        );
        stream.write_all(actions.as_bytes()).expect("Asterisk reads");
        let mut answer = String::new();
        let mut chunk = [0; 4096];
        let deadline = Instant::now() + PATIENCE;
        while !answer.contains("successfully queued") {
            assert!(Instant::now() < deadline, "not started: {answer}");
            if let Ok(count @ 1..) = stream.read(&mut chunk) {
                answer.push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        }
        tag
    }

    /// What was sent: what the witness read, and what amibus read beyond that before Asterisk was gone.
    pub(super) fn runs<'a>(&self, seen: impl Iterator<Item = &'a Message>) -> Vec<Run> {
        let text = std::fs::read_to_string(&self.file).expect("the witness's account");
        let mut account = Account::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            let [tag, n, number, micros] = words[..] else { panic!("not a line of the witness: {line:?}") };
            let sent = Sent {
                number: number.parse().ok(),
                at_micros: micros.parse().expect("a time in the witness's account"),
            };
            account.add(tag, n.parse().expect("a number in the witness's account"), Some(sent));
        }
        for message in seen {
            if let What::Event { tag, n, .. } = &message.what {
                account.add(tag, *n, None);
            }
        }
        account.runs()
    }
}

/// Runs in the making, in the order in which they began.
#[derive(Default)]
struct Account {
    places: HashMap<String, usize>,
    runs: Vec<(String, Vec<Option<Sent>>)>,
    witnessed: Vec<u64>,
}

impl Account {
    /// A number was sent; who only saw it on a bus does not tell when.
    fn add(&mut self, tag: &str, n: u64, sent: Option<Sent>) {
        let place = match self.places.get(tag) {
            Some(place) => *place,
            None => {
                self.runs.push((tag.to_owned(), Vec::new()));
                self.witnessed.push(0);
                self.places.insert(tag.to_owned(), self.runs.len() - 1);
                self.runs.len() - 1
            }
        };
        if sent.is_none() && n > self.witnessed[place] + UNWITNESSED_MAX {
            return;
        }
        let events = &mut self.runs[place].1;
        let index = usize::try_from(n).expect("a number of the dialplan");
        if events.len() <= index {
            events.resize(index + 1, None);
        }
        if sent.is_some() {
            events[index] = sent;
            self.witnessed[place] = self.witnessed[place].max(n);
        }
    }

    /// A number that only its followers witness was sent no later than the last one before it that somebody saw.
    fn runs(mut self) -> Vec<Run> {
        self.runs.sort_by_key(|(tag, _)| tag.trim_start_matches("run-").parse::<u32>().ok());
        let mut at_micros = 0;
        let mut known = |sent: Option<Sent>| {
            at_micros = sent.map_or(at_micros, |sent| sent.at_micros);
            sent.unwrap_or(Sent { number: None, at_micros })
        };
        let whole = |(tag, events): (String, Vec<Option<Sent>>)| Run {
            tag,
            events: events.into_iter().map(&mut known).collect(),
        };
        self.runs.into_iter().map(whole).collect()
    }
}

/// Unrolled, so that there are not many more events of Asterisk's own than numbered ones.
fn dialplan() -> String {
    let mut text = String::from(
        "[faults]\nexten => flood,1,Answer()\n same => n,Set(i=0)\n same => n,While($[${i} < ${FLOODN}])\n\
         \x20same => n,Set(b=$[${i} * @BURST@])\n",
    )
    .replace("@BURST@", &BURST.to_string());
    for k in 0..BURST {
        text.push_str(&format!(
            " same => n,UserEvent(Flood,Tag: ${{FLOODTAG}},Seq: $[${{b}} + {k}],Pad: 0123456789abcdef)\n"
        ));
    }
    text.push_str(&format!(
        " same => n,Set(i=$[${{i}} + 1])\n same => n,Wait({BREATH_SECONDS})\n same => n,EndWhile()\n same => n,Hangup()\n"
    ));
    text
}
