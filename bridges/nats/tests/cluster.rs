//! Three servers that keep a stream together: the leader steps down or dies while messages are on their way.

use std::time::{Duration, Instant};

use amibus_contract::{SharedBridge, Value};
use amibus_services::{Nats, NatsOptions, Ports};
use async_nats::jetstream;

use crate::{
    faults::{assert_exactly_once_in_order, events},
    rig::{EVENTS, PREFIX, offer, open, stored, stream_holds},
};

struct Cluster {
    servers: Vec<Nats>,
    _routes: Vec<Ports>,
}

impl Cluster {
    fn start() -> Self {
        let routes: Vec<Ports> = (0..3).map(|_| Ports::take()).collect();
        let all: Vec<String> =
            routes.iter().map(|p| format!("nats-route://127.0.0.1:{}", p.port(0))).collect();
        let config = |n: usize| {
            let port = routes[n].port(0);
            let routes = all.join(", ");
            format!(
                "server_name: n{n}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [ {routes} ] }}\n"
            )
        };
        let start = |n| Nats::start(&NatsOptions { jetstream: true, config: config(n) });
        Self { servers: (0..3).map(start).collect(), _routes: routes }
    }

    fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    async fn plain(&self, n: usize) -> async_nats::Client {
        async_nats::connect(self.servers[n].url()).await.expect("a plain client")
    }
}

async fn made(bridge: &SharedBridge) {
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(fault) = outlet.publish(&[]).await.fault {
        assert!(Instant::now() < deadline, "the cluster never came up: {fault}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_mixes_nothing_up() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let values = stored(&cluster.url())
        .with("replicas", Value::Integer(3))
        .with("ack_timeout", Value::Duration(Duration::from_secs(2)));
    let bridge = open(&values);
    made(&bridge).await;
    assert!(bridge.promise().contains("3 replicas"), "{}", bridge.promise());
    let messages = events(5_000, 300);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let publishing = offer(&mut *outlet, &messages, 1000);
    let upsetting = async {
        let client = cluster.plain(0).await;
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{EVENTS}");
            let _ = client.request(subject, "".into()).await;
        }
        let info = jetstream::new(client)
            .get_stream(EVENTS)
            .await
            .map(|stream| stream.cached_info().cluster.clone());
        let leader =
            info.ok().flatten().and_then(|cluster| cluster.leader).unwrap_or_else(|| "n0".to_owned());
        leader.trim_start_matches('n').parse::<usize>().expect("a server's number")
    };
    let ((), leader) = tokio::join!(publishing, upsetting);
    // The rest while the leader dies for good.
    let rest = events(8_000, 300).split_off(5_000);
    let publishing = offer(&mut *outlet, &rest, 1000);
    let killing = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        tokio::task::block_in_place(|| cluster.servers[leader].kill());
    };
    tokio::join!(publishing, killing);
    let client = cluster.plain((leader + 1) % 3).await;
    let held = stream_holds(&client, EVENTS, &format!("{PREFIX}.event.>")).await;
    assert_exactly_once_in_order(&held, &events(8_000, 300));
}
