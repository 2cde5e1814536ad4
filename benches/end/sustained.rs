//! One server that sends for a while at a rate near what amibus can do, and what that takes. As a real Asterisk it drops a
//! session when a write has to wait 0.1 s, so a run that is whole is one in which the reader never stalled so long.

use std::io;

use serde_json::json;

use crate::{
    Options,
    buses::Server,
    rig::{self, Load},
    sheet::Sheet,
};

const RATES: [u64; 3] = [50_000, 75_000, 100_000];
const SECONDS: u64 = 10;
const REPEATS: usize = 1;

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let (seconds, repeats) = (options.count(SECONDS, 1), options.repeats(REPEATS));
    let settings = json!({ "recording": options.recording, "seconds": seconds });
    let title = format!("Sustained from one server, spool on: {seconds} s, {repeats} times each");
    let mut sheet = Sheet::new(title, settings);
    for bus in &options.buses {
        let server = Server::start(*bus);
        for repeat in 0..repeats {
            for rate in RATES {
                let load = Load { recording: &options.recording, rate, seconds };
                let row = format!("{}, {rate}/s", bus.name());
                let (trace, poured) =
                    match rig::through_amibus(*bus, &server, &format!("s{rate}x{repeat}"), load).await {
                        Ok(run) => run,
                        Err(error) => {
                            sheet.void(format!("{row}: {error}"));
                            continue;
                        }
                    };
                let sent = trace.arrivals.iter().map(|one| one.sent);
                let took = sent.clone().max().unwrap_or(0).saturating_sub(sent.min().unwrap_or(0));
                let [_, last] = trace.latency(0..u64::MAX, [0.5, 1.0]);
                sheet.add(&row, "sent/s", 0, poured.events as f64 / took as f64 * 1e6);
                sheet.add(&row, "source late, ms", 1, poured.behind.as_secs_f64() * 1e3);
                sheet.add(&row, "longest way of an event, ms", 0, last);
                sheet.add(&row, "CPU s/M", 2, poured.cpu_seconds / poured.events as f64 * 1e6);
                sheet.add(&row, "peak MB", 1, poured.peak_megabytes);
            }
        }
    }
    Ok(sheet)
}
