//! `dial`: batches of calls over real buses into a real Asterisk, which tells how many calls it saw; and files that are
//! wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use amibus_services::{Asterisk, AsteriskOptions, Kafka, Nats, Version};

use super::program::{Ended, File, LIMIT, Running, amibus, run};

const ROWS: usize = 40;
/// How long results may take: a command that NATS lost sight of comes again after the stream's `ack_wait`.
const RESULTS_WITHIN: Duration = Duration::from_secs(120);

/// What Asterisk says by itself: the channels that were given an id, by the id.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>);

impl Witness {
    fn of(asterisk: &Asterisk) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", asterisk.ami_port())).expect("connects");
        stream.write_all(b"Action: Login\r\nUsername: full\r\nSecret: full-pass\r\n\r\n").expect("sent");
        let witness = Self::default();
        let seen = witness.clone();
        let (ready, logged_in) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let mut event = BTreeMap::new();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                match line.split_once(": ") {
                    Some((name, value)) => {
                        event.insert(name.to_owned(), value.to_owned());
                    }
                    None => {
                        if event.get("Event").is_some_and(|name| name == "FullyBooted") {
                            let _ = ready.send(());
                        }
                        seen.take(&std::mem::take(&mut event));
                    }
                }
            }
        });
        logged_in.recv_timeout(LIMIT).expect("logged in");
        witness
    }

    fn take(&self, event: &BTreeMap<String, String>) {
        let is = |name: &str, value: &str| event.get(name).is_some_and(|found| found == value);
        // The other half of a Local channel gets the variables too.
        let first = event.get("Channel").is_some_and(|channel| channel.ends_with(";1"));
        if is("Event", "VarSet") && is("Variable", "AMIBUS_ID") && first {
            let text = |name: &str| event.get(name).cloned().unwrap_or_default();
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(text("Value")).or_default().insert(text("Uniqueid"));
        }
    }

    /// How many calls there were in all, none of them twice.
    fn calls(&self) -> usize {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, calls) in &*seen {
            assert_eq!(calls.len(), 1, "{id} was called as {calls:?}");
        }
        seen.len()
    }
}

/// Asterisk, amibus over one bus, and a file of numbers.
struct Bench {
    asterisk: Asterisk,
    witness: Witness,
    file: File,
    amibus: Running,
}

impl Bench {
    fn start(bus: &str) -> Self {
        let asterisk = Asterisk::start(Version::V22, &AsteriskOptions::default());
        let witness = Witness::of(&asterisk);
        let file = File::new(&format!(
            r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:{}"
username = "full"
secret = "full-pass"

{bus}

[spool]
dir = "@/state"

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["Local/*@phones"]
fields.Context = ["load"]
"#,
            asterisk.ami_port()
        ));
        // Answered, answered, busy, no answer: the column LABTALK is how long an answered call lasts there.
        let rows: Vec<_> =
            (0..ROWS).map(|row| format!("{},0\n", ["2001", "2001", "2002", "2004"][row % 4])).collect();
        std::fs::write(file.folder().join("numbers.csv"), format!("number,LABTALK\n{}", rows.concat()))
            .expect("written");
        let mut amibus = Running::start(amibus(&["run", "-c", &file.name()]));
        amibus.log(|line| line.contains("taking commands"));
        Self { asterisk, witness, file, amibus }
    }

    fn results(&self) -> PathBuf {
        self.file.folder().join("results.csv")
    }

    fn dial(&self, more: &[&str]) -> Running {
        self.dial_to(more, Some(&self.results()))
    }

    fn dial_to(&self, more: &[&str], results: Option<&Path>) -> Running {
        let numbers = self.file.folder().join("numbers.csv").display().to_string();
        let results = results.map(|results| ["--results".to_owned(), results.display().to_string()]);
        let results: Vec<&str> = results.iter().flatten().map(String::as_str).collect();
        let name = self.file.name();
        let arguments =
            ["dial", &numbers, "-c", &name, "--server", "pbx1", "--channel", "Local/{number}@phones"];
        let rest = ["--context", "load", "--timeout", "1s", "--ahead", "5"];
        Running::start(amibus(&[&arguments[..], &rest, &results, more].concat()))
    }

    /// Waits until the results file has so many.
    fn until(&self, count: usize) {
        let deadline = Instant::now() + RESULTS_WITHIN;
        while rows(&self.results()).len() < count {
            assert!(Instant::now() < deadline, "{count} results never came");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All rows have ended as their numbers tell, each after one call.
    fn is_complete(&self, ended: &Ended) -> BTreeMap<String, Vec<String>> {
        assert_eq!(ended.code, Some(0), "{ended:?}\n{:?}", rows(&self.results()));
        let rows = rows(&self.results());
        assert_eq!(rows.len(), ROWS, "a result each");
        let by_row: BTreeMap<_, _> = rows.into_iter().map(|row| (row[0].clone(), row)).collect();
        assert_eq!(by_row.len(), ROWS, "a result each");
        for row in by_row.values() {
            let expected = match row[1].as_str() {
                "2001" => "answered",
                "2002" => "busy",
                _ => "no_answer",
            };
            assert_eq!((row[3].as_str(), row[4].as_str()), ("executed", expected), "{row:?}");
        }
        assert_eq!(self.witness.calls(), ROWS);
        by_row
    }

    fn end(self) {
        self.amibus.signal("TERM");
        assert_eq!(self.amibus.end().code, Some(0));
        drop(self.asterisk);
    }
}

/// The whole lines of a results file but its first.
fn rows(file: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

/// What must be the same however often a batch is run: all but when the result came here.
fn lasting(rows: &BTreeMap<String, Vec<String>>) -> Vec<Vec<String>> {
    let without = |row: &Vec<String>| [&row[..8], &row[9..]].concat();
    rows.values().map(without).collect()
}

/// Runs the batch again without its results: amibus tells what became of it, and nothing is called.
fn again(bench: &Bench, first: &BTreeMap<String, Vec<String>>) {
    std::fs::remove_file(bench.results()).expect("removed");
    let ended = bench.dial(&[]).end();
    let second = bench.is_complete(&ended);
    assert_eq!(lasting(&second), lasting(first));
    let nothing = bench.dial(&[]).end();
    assert_eq!(nothing.code, Some(0), "{nothing:?}");
    assert!(nothing.err.contains("40 of 40 rows have a result"), "{nothing:?}");
}

#[test]
fn over_jetstream_it_is_stopped_and_resumed_and_survives_the_server() {
    let mut nats = Nats::jetstream();
    let stream = "stream = \"AMI\"\ncommands_stream = \"AMI_COMMANDS\"";
    let bench = Bench::start(&format!("[bus.nats]\nurl = {:?}\ncommands = true\n{stream}\n", nats.url()));
    let stopped = bench.dial(&[]);
    bench.until(8);
    stopped.signal("INT");
    let ended = stopped.end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("stopping: no new calls"), "{ended:?}");
    assert!(ended.err.contains("run the same command again: no call is repeated"), "{ended:?}");
    let before = rows(&bench.results()).len();
    assert!((8..ROWS).contains(&before), "{before}");
    assert_eq!(bench.witness.calls(), before, "what was out was awaited, and nothing more was called");

    let resumed = bench.dial(&[]);
    bench.until(before + 5);
    nats.restart();
    bench.until(ROWS);
    let ended = resumed.end();
    assert!(ended.err.contains(&format!("{before} of 40 rows have a result")), "{ended:?}");
    assert!(
        ended.err.contains("nats is back; what was out and does not come is asked for again"),
        "{ended:?}"
    );
    assert!(ended.err.contains("calls: 20 answered, 10 busy, 10 no_answer"), "{ended:?}");
    let first = bench.is_complete(&ended);
    again(&bench, &first);
    bench.end();
}

#[test]
fn over_kafka_it_is_killed_and_resumed() {
    let kafka = Kafka::plain();
    let bench = Bench::start(&format!("[bus.kafka]\nbrokers = {:?}\ncommands = true\n", kafka.brokers()));
    let killed = bench.dial(&[]);
    bench.until(8);
    killed.signal("KILL");
    assert_eq!(killed.end().code, None);
    // The last line may be torn at any byte.
    let written = std::fs::read(bench.results()).expect("read");
    std::fs::write(bench.results(), &written[..written.len() - 3]).expect("torn");
    let resumed = bench.dial(&["--no-events"]);
    bench.until(ROWS);
    let ended = resumed.end();
    let first = bench.is_complete(&ended);
    again(&bench, &first);

    let listed = bench.dial_to(&[], None).end();
    assert_eq!((listed.code, listed.out.lines().count()), (Some(0), ROWS), "{listed:?}");
    for line in listed.out.lines() {
        let result: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(result["time"], *first[&result["row"].to_string()][7], "{line}");
    }
    assert_eq!(bench.witness.calls(), ROWS);
    bench.end();
}

/// Runs `dial` with a configuration whose bus is not there: nothing gets that far.
fn dial(numbers: &[u8], more: &[&str]) -> Ended {
    let file = File::new("[bus.kafka]\nbrokers = \"127.0.0.1:1\"\ncommands = true\n");
    let numbers_file = file.folder().join("numbers.csv");
    std::fs::write(&numbers_file, numbers).expect("written");
    let (numbers, name) = (numbers_file.display().to_string(), file.name());
    let arguments = ["dial", &numbers, "-c", &name, "--server", "pbx1", "--context", "sales"];
    run(&[&arguments[..], more].concat())
}

const CHANNEL: [&str; 2] = ["--channel", "PJSIP/{number}@trunk-a"];

#[test]
fn a_wrong_file_is_told_before_anything_is_called() {
    let long = format!("number,NOTE\n1,{}\n", "x".repeat(1100));
    for (numbers, told) in [
        (
            &b"number,name\n1&2,a\n"[..],
            "row 1 (line 2), column number: --channel puts {number} in, and \"1&2\" has '&'",
        ),
        (
            b"number\n1\n1/2@x\n",
            "row 2 (line 3), column number: --channel puts {number} in, and \"1/2@x\" has '/'",
        ),
        (b"number,name\n,a\n", "row 1 (line 2), column number: --channel puts {number} in, and it is empty"),
        (
            b"number,name\n1\n",
            "row 1 (line 2): 1 values, and the first line names 2 columns: name is missing",
        ),
        (b"number,name\n1,M\xfcller\n", "row 1 (line 2), column name: not UTF-8"),
        (
            b"number,name\n1,\"a\nb\"\n",
            "row 1 (line 2), column name: it has '\\n', which Asterisk cannot take",
        ),
        (b"number,name\n1,a\0b\n", "row 1 (line 2), column name: it has '\\0', which Asterisk cannot take"),
        (long.as_bytes(), "row 1 (line 2), column NOTE: "),
        (b"number,SHELL(x)\n1,2\n", "column \"SHELL(x)\" would be a dialplan function"),
        (b"number,first name\n1,2\n", "column \"first name\" cannot be a channel variable"),
        (b"", "it is empty; its first line names the columns"),
        (b"number\n", "it has a line of column names and no rows"),
    ] {
        for check in [&[][..], &["--check"]] {
            let ended = dial(numbers, &[&CHANNEL[..], check].concat());
            assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{told}: {ended:?}");
            assert!(
                ended.err.contains(told) && ended.err.contains("numbers.csv: "),
                "{told} is not in {ended:?}"
            );
        }
    }
}

#[test]
fn wrong_options_are_2() {
    let numbers = b"number\n1\n";
    for (more, told) in [
        (&["--channel", "PJSIP/{nummer}"][..], "{nummer}: the file has no such column; it has number"),
        (&["--channel", "PJSIP/100"], "every row would be the same call"),
        (&["--channel", "{number}", "--batch", "a/b"], "--batch"),
        (&["--channel", "{number}", "--application", "Playback"], "--application"),
        (&["--channel", "{number}", "--deadline", "soon"], "--deadline"),
        (&["--channel", "{number}", "--results", "results.txt"], "its name ends with .csv or .jsonl"),
        (
            &["--channel", "{number}", "--bus", "kafka", "--set", "commands=false"],
            "needs a bus that keeps commands",
        ),
    ] {
        let ended = dial(numbers, more);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{more:?}: {ended:?}");
        assert!(ended.err.contains(told), "{told} is not in {ended:?}");
    }
}

#[test]
fn a_check_shows_what_would_be_published() {
    let ended = dial(
        b"number,name\n100,Zo\xc3\xab\n100,\"a,b\"\n300,c\n400,d\n",
        &[&CHANNEL[..], &["--check", "--deadline", "2026-11-21T18:00:00Z", "--caller-id", "{name} <1>"]]
            .concat(),
    );
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    let lines: Vec<_> = ended.out.lines().collect();
    assert_eq!(lines.len(), 5, "{ended:?}");
    let command: serde_json::Value = serde_json::from_str(lines[1]).expect("a command");
    assert_eq!(command["fields"]["Channel"], "PJSIP/100@trunk-a");
    assert_eq!(command["fields"]["CallerID"], "a,b <1>");
    let (id, variables) = (command["id"].as_str().expect("an id"), &command["fields"]["Variable"]);
    assert!(id.starts_with("dial-") && id.ends_with("-2"), "{id}");
    assert_eq!((&variables["name"], &variables["AMIBUS_ROW"]), (&"a,b".into(), &"2".into()));
    assert_eq!(variables["AMIBUS_ID"], id);
    assert!(
        lines[3].contains("4 calls, of which 1 are not shown; none is begun after 2026-11-21T18:00:00Z"),
        "{ended:?}"
    );
    assert_eq!(lines[4], "1 rows have a number that an earlier row has");
}

#[test]
fn results_of_another_batch_are_left_alone() {
    let file = File::new("");
    let results = file.folder().join("results.csv");
    let text = "row,number,id,outcome,result,reason,uniqueid,time,seen,code,message\n1,1,other-1,executed,busy,5,u,t,s,,\n";
    std::fs::write(&results, text).expect("written");
    let name = results.display().to_string();
    let ended = dial(b"number\n1\n", &[&CHANNEL[..], &["--results", &name]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("line 2: \"other-1\" is a result of another batch"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&results).expect("read"), text);
}
