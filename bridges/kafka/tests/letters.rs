//! Commands that cannot be read and cannot be set aside as they are: each ends, and none comes again.

use amibus_contract::{Decision, Rejection, Value, conformance::Rig};
use rdkafka::error::RDKafkaErrorCode;

use crate::{
    commands::{SEEN_WITHIN, committed, inlet, is_quiet, next},
    rig::{Got, KafkaRig},
};

/// The largest batch of records that a broker takes by default (`message.max.bytes`), in bytes.
const BROKER_BYTES: usize = 1_048_588;
/// What a batch of one record with the key `key` and no headers has besides the body: 61 bytes of the batch, 14 of the
/// record (Kafka's protocol guide, "Record Batch").
const AROUND_BYTES: usize = 61 + 14;

/// How often a command may come again until it is set aside.
const ATTEMPTS: usize = 10;

fn cause() -> Rejection {
    Rejection { code: "too_large".into(), message: "too large".into(), field: None }
}

/// Sets aside a command with that body and those headers. Answers its offset, after it has ended for good.
async fn set_aside(rig: &KafkaRig, body: &[u8], headers: &[(&str, &[u8])]) -> i64 {
    let bridge = rig.bridge();
    let mut inlet = inlet(rig, &bridge).await;
    let (_, offset) = rig.send(&rig.topic("command"), b"key", body, headers).await;
    let request = next(&mut *inlet).await;
    assert_eq!(request.body.len(), body.len());
    request.handle.dead_letter(cause()).await.expect("ended");
    is_quiet(&mut *inlet).await;
    assert_eq!(committed(rig, 6), offset + 1, "it would come again to the next process");
    offset
}

async fn letter(rig: &KafkaRig) -> Got {
    rig.watch(&[&rig.topic("command-dlt")]).next(SEEN_WITHIN).await.expect("a dead letter")
}

/// Sets it aside, and sees a letter that says what was cut and where all of it is.
async fn is_cut(rig: &KafkaRig, body: &[u8], headers: &[(&str, &[u8])]) -> Got {
    let offset = set_aside(rig, body, headers).await;
    let letter = letter(rig).await;
    assert_eq!(String::from_utf8_lossy(&letter.body), format!("{{\"amibuscutbytes\":{}}}", body.len()));
    assert_eq!(letter.key.as_deref(), Some(&b"key"[..]));
    assert_eq!(letter.text("amibus_error_code"), Some("too_large"));
    assert_eq!(letter.text("kafka_dlt-original-topic"), Some(rig.topic("command").as_str()));
    assert_eq!(letter.header("kafka_dlt-original-offset"), Some(&offset.to_be_bytes()[..]));
    letter
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_as_large_as_the_broker_takes_ends_as_a_cut_letter() {
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("command"), 6, &[]).await;
    let body = vec![b'x'; BROKER_BYTES - AROUND_BYTES + 1];
    let more = rig.try_send(&rig.topic("command"), b"key", &body, &[]).await;
    let code = more.expect_err("more than the broker takes").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge));
    is_cut(&rig, &body[1..], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_too_large_only_with_its_cause_ends_as_a_cut_letter() {
    is_cut(&KafkaRig::shared(), &vec![b'x'; 999_800], &[("x-order", b"8812")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_are_too_large_are_left_out_and_small_ones_are_kept() {
    let (rig, large) = (KafkaRig::shared(), vec![0xff; 1_000_000]);
    let letter = is_cut(&rig, b"{", &[("x-large", &large), ("x-order", b"8812")]).await;
    assert_eq!((letter.header("x-large"), letter.header("x-order")), (None, Some(&b"8812"[..])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_topic_for_dead_letters_a_command_is_passed_over() {
    let mut rig = KafkaRig::shared();
    rig.values = rig.values.with("create_topics", Value::Flag(false));
    for word in ["command", "response"] {
        rig.make_topic(&rig.topic(word), 6, &[]).await;
    }
    set_aside(&rig, b"not json", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_topic_for_dead_letters_takes_nothing_a_command_is_passed_over() {
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("command-dlt"), 1, &[("max.message.bytes", "50")]).await;
    set_aside(&rig, b"not json", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_for_dead_letters_that_was_deleted_is_made_again() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    for body in ["first", "second"] {
        rig.send(&rig.topic("command"), b"key", body.as_bytes(), &[]).await;
        // Where a broker did not answer in time the command comes again.
        let mut faults = Vec::new();
        while let Err(fault) = next(&mut *inlet).await.handle.dead_letter(cause()).await {
            assert_eq!(fault.decision, Decision::Retry, "{fault}");
            faults.push(fault);
            assert!(faults.len() < ATTEMPTS, "{faults:?}");
        }
        assert_eq!(letter(&rig).await.body, body.as_bytes());
        rig.delete_topic(&rig.topic("command-dlt")).await;
    }
}
