//! Whether the cluster was reachable when last seen, as librdkafka's own threads tell it.
//!
//! librdkafka reports trouble by callback and recovery only in its statistics, so both are listened to. Trouble
//! with the connection and trouble with publishing are kept apart: a broker that hangs has a good connection.

use std::sync::{Mutex, PoisonError};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::faults;

/// How often librdkafka gives its statistics, in milliseconds.
pub(crate) const STATISTICS_EVERY_MS: u32 = 2_000;

/// What is known of the cluster. Shared by all clients of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: bool,
    connection: Option<Fault>,
    publishing: Option<Fault>,
    /// The last error of any one broker: the reason when all of them are down.
    last: Option<Fault>,
}

impl Health {
    /// Nothing wrong, or what is.
    pub(crate) fn status(&self) -> Result<(), String> {
        let state = self.lock();
        match state.connection.as_ref().or(state.publishing.as_ref()) {
            Some(fault) => Err(fault.to_string()),
            None if state.seen => Ok(()),
            None => Err("no broker has answered yet".into()),
        }
    }

    /// What is wrong with the connection, if anything.
    pub(crate) fn trouble(&self) -> Option<Fault> {
        self.lock().connection.clone()
    }

    /// A broker answered.
    pub(crate) fn answered(&self) {
        let mut state = self.lock();
        state.seen = true;
        state.connection = None;
    }

    /// A record was stored.
    pub(crate) fn stored(&self) {
        let mut state = self.lock();
        state.seen = true;
        state.connection = None;
        state.publishing = None;
    }

    /// A call failed for want of an answer.
    pub(crate) fn unanswered(&self, fault: &Fault) {
        self.lock().connection.get_or_insert_with(|| fault.clone());
    }

    /// A batch was not stored in time.
    pub(crate) fn not_stored(&self, fault: &Fault) {
        self.lock().publishing = Some(fault.clone());
    }

    fn error(&self, code: RDKafkaErrorCode, reason: &str) {
        let mut fault = faults::of_code(code, reason);
        if refuses_certificate(reason) {
            fault = Fault::new(FaultKind::Unauthorized, fault.message);
        }
        let mut state = self.lock();
        match code {
            RDKafkaErrorCode::AllBrokersDown => {
                let last = state.last.clone();
                state.connection = Some(last.unwrap_or(fault));
            }
            _ if fault.kind == FaultKind::Unauthorized => {
                state.connection = Some(fault.clone());
                state.last = Some(fault);
            }
            RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve => state.last = Some(fault),
            _ => {}
        }
    }

    fn statistics(&self, statistics: &Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.answered();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the broker ended the connection with a TLS alert that concerns our certificate. With TLS 1.3 that comes
/// after the handshake, and librdkafka gives it as a failed connection; the alert's number (RFC 8446, 6.2) is only in
/// OpenSSL's words.
fn refuses_certificate(reason: &str) -> bool {
    const ALERTS: [&str; 8] = ["42", "43", "44", "45", "46", "48", "49", "116"];
    let number = reason.split("SSL alert number ").nth(1);
    let number = number.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    number.is_some_and(|number| ALERTS.contains(&number))
}

/// The callbacks that every client of a bridge has.
#[derive(Clone, Debug)]
pub(crate) struct Listener(pub(crate) std::sync::Arc<Health>);

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::warn!(facility, "librdkafka: {message}"),
            RDKafkaLogLevel::Warning => tracing::info!(facility, "librdkafka: {message}"),
            _ => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.0.statistics(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
        if let Some(code) = error.rdkafka_error_code() {
            self.0.error(code, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broker_down_is_not_the_bus_down_and_its_reason_is_kept() {
        let health = Health::default();
        assert!(health.status().is_err(), "nothing seen yet");
        health.answered();
        health.error(RDKafkaErrorCode::BrokerTransportFailure, "connection refused");
        assert_eq!(health.status(), Ok(()));
        health.error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert!(health.status().is_err_and(|why| why.contains("connection refused")));
        health.stored();
        assert_eq!(health.status(), Ok(()));
    }

    #[test]
    fn a_wrong_password_stays_the_reason_when_all_brokers_are_down() {
        let health = Health::default();
        health.error(RDKafkaErrorCode::Authentication, "SASL authentication failed");
        health.error(RDKafkaErrorCode::AllBrokersDown, "1/1 brokers are down");
        assert_eq!(health.trouble().map(|fault| fault.kind), Some(FaultKind::Unauthorized));
    }

    #[test]
    fn a_refused_certificate_is_told_from_a_broken_connection() {
        assert!(refuses_certificate(
            "Receive failed: SSL routines::bad certificate: SSL alert number 42 (after 0ms)"
        ));
        assert!(refuses_certificate("certificate required: SSL alert number 116"));
        assert!(!refuses_certificate("internal error: SSL alert number 80"));
        assert!(!refuses_certificate("Connect failed: Connection refused (after 42ms in state CONNECT)"));
    }

    #[test]
    fn a_broker_that_answers_and_does_not_store_is_trouble() {
        let health = Health::default();
        health.not_stored(&Fault::new(FaultKind::TimedOut, "not stored within 30s"));
        health.answered();
        assert!(health.status().is_err());
        health.stored();
        assert_eq!(health.status(), Ok(()));
    }
}
