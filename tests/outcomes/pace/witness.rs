//! A manager session of its own that sees the calls of the tests begin and end.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// What Asterisk told of the calls whose ChannelId amibus chose, in its order.
pub(super) struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Seen {
    /// The extension's first letter.
    group: String,
    unique: String,
    begins: bool,
    /// Seconds, by Asterisk's clock.
    at: f64,
}

impl Witness {
    pub(super) fn of(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Asterisk listens");
        let login = "Action: Login\r\nUsername: full\r\nSecret: full-pass\r\nEvents: call\r\n\r\n";
        stream.write_all(login.as_bytes()).expect("it takes the login");
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Authentication accepted")), "it lets the witness in");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let writing = Arc::clone(&seen);
        thread::spawn(move || {
            let mut block = BTreeMap::new();
            for line in lines {
                if !line.is_empty() {
                    if let Some((name, value)) = line.split_once(": ") {
                        block.entry(name.to_owned()).or_insert_with(|| value.to_owned());
                    }
                    continue;
                }
                let read = read(&std::mem::take(&mut block));
                writing.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
            }
        });
        Self { seen }
    }

    /// How many calls of a group have begun.
    pub(super) fn begun(&self, group: &str) -> usize {
        self.seen().iter().filter(|seen| seen.group == group && seen.begins).count()
    }

    /// How many are live.
    pub(super) fn live(&self, group: &str) -> usize {
        self.counts(group).last().copied().unwrap_or(0)
    }

    /// How many were live at most.
    pub(super) fn most_live(&self, group: &str) -> usize {
        self.counts(group).into_iter().max().unwrap_or(0)
    }

    /// When each began.
    pub(super) fn begins(&self, group: &str) -> Vec<f64> {
        let mut times: Vec<f64> = self
            .seen()
            .iter()
            .filter(|seen| seen.group == group && seen.begins)
            .map(|seen| seen.at)
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// How many were live after each that began or ended.
    fn counts(&self, group: &str) -> Vec<usize> {
        let mut live = std::collections::BTreeSet::new();
        let seen = self.seen();
        let of_group = seen.iter().filter(|seen| seen.group == group);
        of_group
            .map(|seen| {
                match seen.begins {
                    true => live.insert(seen.unique.clone()),
                    false => live.remove(&seen.unique),
                };
                live.len()
            })
            .collect()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first leg of a Local channel, whose Uniqueid is the ChannelId.
fn read(block: &BTreeMap<String, String>) -> Option<Seen> {
    let unique =
        block.get("Uniqueid").filter(|unique| unique.starts_with("amibus-") && !unique.ends_with(";2"))?;
    let begins = match block.get("Event")?.as_str() {
        "Newchannel" => true,
        "Hangup" => false,
        _ => return None,
    };
    let group = block.get("Channel")?.strip_prefix("Local/")?.get(..1)?.to_owned();
    let at = block.get("Timestamp")?.parse().ok()?;
    Some(Seen { group, unique: unique.clone(), begins, at })
}
