//! The bucket of the claims: looked at, and made where it is missing.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use async_nats::jetstream::{
    Context,
    stream::{Config, DiscardPolicy, StorageType},
};

use crate::{settings::ClaimSettings, stream};

/// How long a stream remembers message ids, which the claims have none of; it must not be above its `max_age`.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The bucket as it is on the server, made where it is missing and that is wanted. `seen` tells, and is told, whether it
/// was there before: one that is made anew knows no claims.
pub(crate) async fn open(
    context: &Context,
    wanted: &ClaimSettings,
    seen: &AtomicBool,
) -> Result<Config, Fault> {
    let name = wanted.stream();
    if seen.load(Ordering::Acquire) && stream::find(context, &name).await?.is_none() {
        tracing::error!(
            bucket = wanted.bucket,
            "the bucket of the claims was removed: what was claimed in it is forgotten, and what its bus delivers again may \
             be run again by another amibus"
        );
    }
    let found = stream::find_or_make(context, &name, wanted.create.then(|| as_wanted(wanted)));
    let found = fitting(found.await?, wanted)?;
    seen.store(true, Ordering::Release);
    Ok(found)
}

/// As `nats kv add` makes it, with one revision of each entry.
fn as_wanted(wanted: &ClaimSettings) -> Config {
    Config {
        name: wanted.stream(),
        description: Some("Which amibus carries out which command, and its outcome".to_owned()),
        subjects: vec![wanted.subject(">")],
        storage: StorageType::File,
        num_replicas: wanted.replicas,
        max_messages_per_subject: 1,
        max_age: wanted.max_age,
        max_bytes: wanted.max_bytes.unwrap_or(-1),
        duplicate_window: if wanted.max_age.is_zero() {
            DUPLICATE_WINDOW
        } else {
            DUPLICATE_WINDOW.min(wanted.max_age)
        },
        // A claim that finds no room is refused, and its command is not sent. Dropping old ones would be silent.
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// The same bucket, if claims in it hold.
pub(crate) fn fitting(config: Config, wanted: &ClaimSettings) -> Result<Config, Fault> {
    let bucket = &wanted.bucket;
    let why = if config.mirror.is_some() {
        "is a mirror, which takes no claims itself: name its origin in `claims_bucket`".to_owned()
    } else if config.sealed || config.no_ack {
        "is sealed, or acknowledges nothing: make another and name it in `claims_bucket`".to_owned()
    } else if config.max_messages_per_subject < 1 {
        format!("is no key-value bucket: nats kv add {bucket}")
    } else if config.discard == DiscardPolicy::Old && (config.max_bytes > 0 || config.max_messages > 0) {
        // What was dropped could be claimed once more.
        format!(
            "drops old claims when it is full, and their commands could run once more: nats stream edit {} --discard=new",
            wanted.stream()
        )
    } else if !config.max_age.is_zero() && config.max_age < wanted.least_age {
        // What was forgotten could be claimed once more.
        format!(
            "forgets claims after {:?}, and their commands could run once more: nats stream edit {} --max-age={}s",
            config.max_age,
            wanted.stream(),
            wanted.least_age.as_secs()
        )
    } else {
        return Ok(config);
    };
    Err(Fault::new(FaultKind::Missing, format!("bucket {bucket} {why}")))
}
