//! `amibus check --connect`: tries the bus and says what was found.

use std::sync::Arc;

use amibus_contract::Fault;
use async_nats::jetstream::{
    Context,
    context::PublishErrorKind,
    message::PublishMessage,
    stream::{Config, RetentionPolicy, StorageType},
};
use futures_util::StreamExt;

use crate::{
    bucket,
    dial::{self, Dialled, Role},
    faults,
    hub::Hub,
    look,
    settings::{ClaimSettings, CommandSettings, Settings, StreamSettings},
    stream, subjects,
};

/// The server in the subjects that are tried; nobody's Asterisk should be called so.
const CHECK_SERVER: &str = "amibus-check";
/// A stream's name that no stream has.
const NO_STREAM: &str = "amibus-check-no-such-stream";
/// How many consumers of the commands are listed.
const MAX_CONSUMERS: usize = 32;

/// What is told where several processes may take from the stream and no bucket keeps them apart.
const NOT_SHARED: &str = "warning: claims are not shared (`claims_bucket = \"\"`): where several amibus take commands from this stream, one that \
     is delivered again while the first of them still works on it, or after that one died, may run twice";

pub(crate) async fn probe(hub: &Hub) -> Result<Vec<String>, Fault> {
    let settings = &hub.settings;
    let dialled = dial::dial(settings, Role::Probe).await?;
    let info = dialled.client.server_info();
    let mut lines = vec![format!(
        "connected to nats-server {} ({}) {}{}; messages of at most {} bytes",
        info.version,
        info.server_name,
        settings.login.words(),
        if info.tls_required || settings.tls.required || settings.tls.first { ", over TLS" } else { "" },
        info.max_payload,
    )];
    let context = hub.context(&dialled);
    match &settings.stream {
        Some(wanted) => events(&context, settings, wanted, &dialled, &mut lines).await?,
        None => lines.push(
            "no `stream`: core NATS, at most once, to who listens; whoever is away misses it".to_owned(),
        ),
    }
    match &settings.commands {
        Some(commands) => take_commands(&context, settings, commands, &dialled, &mut lines).await?,
        None => lines.push("no commands are taken (`commands = false`)".to_owned()),
    }
    match &settings.claims {
        Some(wanted) => claims(&context, wanted, &dialled, &mut lines).await?,
        None if settings.commands.as_ref().is_some_and(|commands| commands.stream.is_some()) => {
            lines.push(NOT_SHARED.to_owned());
        }
        None => {}
    }
    Ok(lines)
}

async fn events(
    context: &Context,
    settings: &Settings,
    wanted: &StreamSettings,
    dialled: &Dialled,
    lines: &mut Vec<String>,
) -> Result<(), Fault> {
    let Some(config) = found(context, dialled, &wanted.name, wanted.create).await? else {
        lines.push(format!("stream {} does not exist yet: it is made when amibus runs", wanted.name));
        return Ok(());
    };
    let config = stream::keeps_events(config, &settings.prefix)?;
    lines.push(format!(
        "stream {}: {}; ids are remembered for {:?}; keeps {}",
        config.name,
        stream::in_words(&config),
        config.duplicate_window,
        config.subjects.join(" "),
    ));
    lines.push(
        "an acknowledged message survives kill -9 of the server, but a power cut only with `sync_interval: always` in \
         its configuration, or with more replicas"
            .to_owned(),
    );
    repeats(context, settings, &config, dialled, lines).await?;
    if let Some(how) = stream::forgets(&config) {
        lines.push(format!("warning: stream {} has {how}", config.name));
    }
    let dead = format!("{}.dead.>", settings.prefix);
    if !config.subjects.iter().any(|subject| subjects::covers(subject, &dead)) {
        lines
            .push(format!("warning: stream {} does not keep {dead}: what is set aside is lost", config.name));
    }
    let asked = [format!("{}.request.>", settings.prefix), format!("{}.command.>", settings.prefix)];
    for subject in asked {
        if config.subjects.iter().any(|kept| subjects::covers(kept, &subject)) {
            lines.push(format!(
                "warning: stream {} keeps {subject} too: who asks there gets its acknowledgement in place of the \
                 response",
                config.name
            ));
        }
    }
    may_publish(context, settings, dialled, lines).await
}

/// How what is sent again is kept from being stored twice: what waits in the spool may be sent again as late as
/// `spool.max_age`, for which no window is long enough.
async fn repeats(
    context: &Context,
    settings: &Settings,
    config: &Config,
    dialled: &Dialled,
    lines: &mut Vec<String>,
) -> Result<(), Fault> {
    let (name, window) = (&config.name, config.duplicate_window);
    let least = settings.least_duplicate_window();
    if window < least {
        lines.push(format!(
            "warning: stream {name} remembers ids for {window:?}: a message whose acknowledgement was lost may be sent \
             again up to {least:?} later (connect_timeout, ack_timeout, ping_interval), and would be stored twice; nats \
             stream edit {name} --dupe-window={}s",
            least.as_secs()
        ));
    }
    let before = dialled.refused_so_far();
    let may = tokio::select! {
        biased;
        may = look::may_look(context, config, &settings.prefix, CHECK_SERVER) => may,
        said = dialled.refused(before, |said| said.contains("\"$JS.")) => Err(said.to_string()),
        () = dialled.lost() => return Err(faults::lost()),
    };
    lines.push(match may {
        Ok(()) => "what is sent again later than that, after amibus or the server was away, is first looked for in the \
                   stream"
            .to_owned(),
        Err(why) => format!(
            "warning: stream {name} may not be read ({why}): what is sent again more than {window:?} later, after amibus \
             or the server was away, is stored twice; allow publishing to $JS.API.CONSUMER.CREATE.{name}.> and \
             $JS.API.CONSUMER.MSG.NEXT.{name}.>, or let the stream remember ids for as long as either may be away \
             (nats stream edit {name} --dupe-window=...)"
        ),
    });
    Ok(())
}

/// Whether we may publish.
async fn may_publish(
    context: &Context,
    settings: &Settings,
    dialled: &Dialled,
    lines: &mut Vec<String>,
) -> Result<(), Fault> {
    for word in subjects::KEPT {
        let subject = format!("{}.{word}.{CHECK_SERVER}.check", settings.prefix);
        match refusal(context, dialled, &subject).await? {
            None => lines.push(format!("may publish to {}.{word}.>", settings.prefix)),
            Some(said) if word == "dead" => {
                lines.push(format!("warning: {said}: what is set aside is lost"));
            }
            Some(said) => return Err(faults::forbidden(&said)),
        }
    }
    Ok(())
}

async fn take_commands(
    context: &Context,
    settings: &Settings,
    commands: &CommandSettings,
    dialled: &Dialled,
    lines: &mut Vec<String>,
) -> Result<(), Fault> {
    let prefix = &settings.prefix;
    let also = if commands.stream.is_none() { format!(" and {prefix}.command.>") } else { String::new() };
    lines.push(format!("commands: micro service amibus on {prefix}.request.>{also}"));
    let Some(name) = &commands.stream else { return Ok(()) };
    let Some(config) = found(context, dialled, name, commands.create).await? else {
        lines.push(format!("commands: stream {name} does not exist yet: it is made when amibus runs"));
        return Ok(());
    };
    lines.push(format!(
        "commands: stream {} ({}); delivered again after {:?} without a sign; answers go to the header reply-to",
        config.name,
        stream::in_words(&config),
        commands.ack_wait,
    ));
    consumers(context, name, lines).await;
    if config.retention == RetentionPolicy::Limits {
        lines.push(format!(
            "warning: stream {} is no work queue: a consumer that is made anew takes only what comes after it",
            config.name
        ));
    }
    Ok(())
}

/// The bucket of the claims, and whether we may write there.
async fn claims(
    context: &Context,
    wanted: &ClaimSettings,
    dialled: &Dialled,
    lines: &mut Vec<String>,
) -> Result<(), Fault> {
    let name = wanted.stream();
    let Some(config) = found(context, dialled, &name, wanted.create).await? else {
        lines.push(format!(
            "claims: bucket {} does not exist yet: it is made when amibus runs",
            wanted.bucket
        ));
        return Ok(());
    };
    let config = bucket::fitting(config, wanted)?;
    lines.push(format!(
        "claims: bucket {} ({}); kept for {}",
        wanted.bucket,
        stream::in_words(&config),
        if config.max_age.is_zero() { "ever".to_owned() } else { format!("{:?}", config.max_age) },
    ));
    if config.storage == StorageType::Memory {
        lines.push(format!(
            "warning: bucket {} is in memory: when the server is started anew, every claim is forgotten",
            wanted.bucket
        ));
    }
    match refusal(context, dialled, &wanted.subject(CHECK_SERVER)).await? {
        None => Ok(()),
        Some(said) => Err(faults::forbidden(&said)),
    }
}

/// How the server refuses us to publish to this subject, if it does. The stream is told to expect another name, so it
/// refuses what we send, and keeps nothing; the permission is looked at before.
async fn refusal(context: &Context, dialled: &Dialled, subject: &str) -> Result<Option<Arc<str>>, Fault> {
    let before = dialled.refused_so_far();
    let publish = PublishMessage::build().payload("{}".into()).expected_stream(NO_STREAM);
    let refused = dialled.refused(before, |said| said.contains(&format!("\"{subject}\"")));
    let tried = async {
        match context.send_publish(subject.to_owned(), publish).await {
            Ok(ack) => ack.await.map(drop),
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        biased;
        tried = tried => match tried {
            Err(error) if error.kind() == PublishErrorKind::TimedOut => Err(faults::publishing(&error, subject)),
            // Refused as it was asked for.
            _ => Ok(None),
        },
        said = refused => Ok(Some(said)),
        () = dialled.lost() => Err(faults::lost()),
    }
}

/// Who takes commands from the stream, and how many wait.
async fn consumers(context: &Context, name: &str, lines: &mut Vec<String>) {
    let Ok(stream) = context.get_stream_no_info(name).await else { return };
    let mut consumers = stream.consumers().take(MAX_CONSUMERS);
    while let Some(Ok(info)) = consumers.next().await {
        lines.push(format!(
            "commands: consumer {} on {}: {} waiting, {} being worked on, asked by {} now",
            info.name, info.config.filter_subject, info.num_pending, info.num_ack_pending, info.num_waiting
        ));
    }
}

/// The stream of that name; none is a fault unless it `will_be_made`.
async fn found(
    context: &Context,
    dialled: &Dialled,
    name: &str,
    will_be_made: bool,
) -> Result<Option<Config>, Fault> {
    let found = tokio::select! {
        biased;
        found = stream::find(context, name) => found?,
        said = dialled.refused(0, |said| said.contains("\"$JS.")) => return Err(faults::forbidden(&said)),
        () = dialled.lost() => return Err(faults::lost()),
    };
    if found.is_none() && !will_be_made { Err(stream::missing(name)) } else { Ok(found) }
}
