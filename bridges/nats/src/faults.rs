//! What NATS says when it refuses, as faults.

use std::{error::Error as _, io};

use amibus_contract::{Decision, Fault, FaultKind};
use async_nats::{
    ConnectError, ConnectErrorKind,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind, RequestError, RequestErrorKind},
    },
    rustls,
};

/// `too many requests`: the stream's queue is full (nats-server 2.11, `JSStreamTooManyRequests`).
const HTTP_BUSY: usize = 429;
const HTTP_UNAVAILABLE: usize = 503;

/// Connecting failed.
pub(crate) fn connecting(error: &ConnectError) -> Fault {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            Fault::new(FaultKind::Unauthorized, format!("the server refused our login: {error}"))
        }
        ConnectErrorKind::Tls => Fault::new(FaultKind::Unauthorized, error.to_string()),
        _ => match tls_error(error) {
            Some(tls) => Fault::new(FaultKind::Unauthorized, format!("TLS: {tls}")),
            None => Fault::new(FaultKind::Unreachable, error.to_string()),
        },
    }
}

/// The error of TLS inside: those mean certificates that do not fit, which a person has to mend.
fn tls_error(error: &ConnectError) -> Option<&rustls::Error> {
    let error = error.source()?.downcast_ref::<io::Error>()?;
    error.get_ref()?.downcast_ref::<rustls::Error>()
}

/// A message was not acknowledged.
pub(crate) fn publishing(error: &PublishError, subject: &str) -> Fault {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Fault::new(FaultKind::TooLarge, error.to_string()),
        PublishErrorKind::StreamNotFound => {
            Fault::new(FaultKind::Unreachable, format!("no stream answers for {subject}"))
        }
        PublishErrorKind::TimedOut => Fault::new(FaultKind::TimedOut, "no acknowledgement in time"),
        PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
            Fault::new(FaultKind::Unreachable, error.to_string())
        }
        _ => match error.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
            Some(error) => refused(error),
            None => Fault::new(FaultKind::Unreachable, error.to_string()),
        },
    }
}

/// A stream refused a message. Only what concerns the message's size is for good: leaving a message out loses it.
fn refused(error: &jetstream::Error) -> Fault {
    match error.error_code() {
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
            Fault::new(FaultKind::TooLarge, error.to_string())
        }
        ErrorCode::STREAM_SEALED => Fault::new(FaultKind::Missing, format!("the stream is sealed: {error}")),
        _ => Fault::new(FaultKind::Refused, error.to_string()).deciding(Decision::Retry),
    }
}

/// JetStream refused something about a stream or a consumer; `what` says which.
pub(crate) fn managing(error: &jetstream::Error, what: &str) -> Fault {
    let text = format!("{what}: {error}");
    match error.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Fault::new(FaultKind::Missing, format!("{text}; switch JetStream on, or leave `stream` out"))
        }
        _ if matches!(error.code(), HTTP_UNAVAILABLE | HTTP_BUSY) => Fault::new(FaultKind::Unreachable, text),
        _ => Fault::new(FaultKind::Missing, text),
    }
}

/// JetStream did not answer a question about `what`.
pub(crate) fn asking(error: &RequestError, what: &str) -> Fault {
    match error.kind() {
        RequestErrorKind::NoResponders => not_enabled(what),
        RequestErrorKind::TimedOut => unanswered(what),
        _ => Fault::new(FaultKind::Unreachable, format!("{what}: {error}")),
    }
}

/// Nobody listens on JetStream's own subjects.
pub(crate) fn not_enabled(what: &str) -> Fault {
    let text = "JetStream is not enabled for this account; switch it on, or leave `stream` out";
    Fault::new(FaultKind::Missing, format!("{what}: {text}"))
}

/// No answer in time; a missing permission looks the same unless the server says so.
pub(crate) fn unanswered(what: &str) -> Fault {
    Fault::new(FaultKind::TimedOut, format!("{what}: JetStream did not answer in time"))
}

/// The connection is gone.
pub(crate) fn lost() -> Fault {
    Fault::new(FaultKind::Unreachable, "the connection to NATS broke")
}

/// The bridge was closed.
pub(crate) fn closed() -> Fault {
    Fault::new(FaultKind::Closed, "the bridge was closed")
}

/// The server said that we may not; `said` are its words.
pub(crate) fn forbidden(said: &str) -> Fault {
    Fault::new(FaultKind::Forbidden, format!("{said}; permit it in the server's configuration"))
}
