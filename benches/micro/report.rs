//! The figures as a table and as JSON.

use std::io;

use serde_json::{Value, json};

use crate::{
    common::{machine, table},
    contenders::Contender,
    measure::Measured,
    peer::Peer,
    spool,
};

pub(crate) fn print(results: &[Measured], spool: &spool::Measured) -> io::Result<()> {
    let heads = ["", "ns a message", "messages/s", "MB/s", "x count-ends", "x (a)", "x (b)"];
    for result in results {
        let mut rows: Vec<Vec<String>> = Contender::ALL.iter().map(|one| row(result, *one)).collect();
        rows.extend(result.peer().map(|(nanos, ratio)| {
            let ratio = format!("event: {} times as fast", ratio.show(1));
            vec![Peer::NAME.to_owned(), nanos.show(0), format!("{:.0}", 1e9 / nanos.median), ratio]
        }));
        let title = format!("{}: {} messages, {} bytes", result.name, result.messages, result.bytes);
        table::print(&title, &heads, &rows)?;
    }
    let rows = [vec![
        "append".to_owned(),
        format!("{:.0}", spool.per_second.median),
        spool.of_plain.show(2),
        spool.body_bytes.to_string(),
    ]];
    table::print("spool", &["", "records/s", "of plain writes", "bytes a body"], &rows)
}

fn row(result: &Measured, contender: Contender) -> Vec<String> {
    let nanos = result.nanos(contender);
    let per_second = 1e9 / nanos.median;
    let megabytes = per_second * result.bytes as f64 / result.messages as f64 / 1e6;
    let against = |other| result.ratio(contender, other).show(2);
    vec![
        contender.name().to_owned(),
        nanos.show(0),
        format!("{per_second:.0}"),
        format!("{megabytes:.0}"),
        against(Contender::CountEnds),
        against(Contender::MapAndValue),
        against(Contender::ZeroCopy),
    ]
}

pub(crate) fn json(results: &[Measured], spool: &spool::Measured) -> Value {
    let recordings: Vec<Value> = results.iter().map(recording).collect();
    json!({
        "machine": machine::describe(),
        "recordings": recordings,
        "spool": {
            "records_per_second": spool.per_second.json(),
            "of_plain_writes": spool.of_plain.json(),
            "body_bytes": spool.body_bytes,
        },
    })
}

fn recording(result: &Measured) -> Value {
    let contenders = Contender::ALL.iter().map(|one| {
        let figures = json!({
            "nanos_a_message": result.nanos(*one).json(),
            "times_count_ends": result.ratio(*one, Contender::CountEnds).json(),
            "times_map_and_value": result.ratio(*one, Contender::MapAndValue).json(),
            "times_zero_copy": result.ratio(*one, Contender::ZeroCopy).json(),
        });
        (one.name().to_owned(), figures)
    });
    let mut contenders: serde_json::Map<String, Value> = contenders.collect();
    if let Some((nanos, ratio)) = result.peer() {
        let figures = json!({ "nanos_a_message": nanos.json(), "event_is_times_as_fast": ratio.json() });
        contenders.insert(Peer::NAME.to_owned(), figures);
    }
    json!({ "name": result.name, "messages": result.messages, "bytes": result.bytes, "contenders": contenders })
}
