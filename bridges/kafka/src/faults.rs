//! Kafka's error codes as faults: what to do next is decided here, by code and never by text.

use amibus_contract::{Decision, Fault, FaultKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The fault of an error that concerns one record or one topic.
pub(crate) fn of_code(code: RDKafkaErrorCode, what: &str) -> Fault {
    let (kind, decision) = judge(code);
    Fault::new(kind, format!("{what}: {code}")).deciding(decision)
}

/// The fault of an error of any call.
pub(crate) fn of(error: &KafkaError, what: &str) -> Fault {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::AdminOp(code), _) => of_code(*code, what),
        (_, Some(code)) => of_code(code, what),
        (_, None) => Fault::new(FaultKind::Unreachable, format!("{what}: {error}")),
    }
}

/// The fault of an error that ends a client, in librdkafka's words.
pub(crate) fn fatal(code: RDKafkaErrorCode, text: &str, what: &str) -> Fault {
    if code == RDKafkaErrorCode::FencedInstanceId {
        let message = format!(
            "{what}: another member of the group has the same group.instance.id as this one and has taken its place: two \
             of one id take it from each other for ever; give each amibus an id of its own (bus.kafka.librdkafka), or none"
        );
        return Fault::new(FaultKind::Refused, message).deciding(Decision::Stop);
    }
    let (kind, decision) = judge(code);
    Fault::new(kind, format!("{what}: {code}: {text}")).deciding(decision)
}

fn judge(code: RDKafkaErrorCode) -> (FaultKind, Decision) {
    use RDKafkaErrorCode as Code;
    let kind = match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => FaultKind::TooLarge,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => FaultKind::Forbidden,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::UnacceptableCredential => FaultKind::Unauthorized,
        // Our side refuses the broker's certificate, or the broker ours: neither heals by waiting.
        Code::SSL => return (FaultKind::Unauthorized, Decision::Stop),
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::UnknownTopicId => FaultKind::Missing,
        Code::InvalidReplicationFactor | Code::InvalidPartitions | Code::InvalidConfig => {
            return (FaultKind::Missing, Decision::Stop);
        }
        Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::UnsupportedForMessageFormat
        | Code::PolicyViolation => FaultKind::Refused,
        // Another record of the same request was the bad one, or the client gave up the sequence: not this message's.
        Code::InvalidDifferentRecord
        | Code::Fatal
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping => return (FaultKind::Refused, Decision::Retry),
        Code::PurgeQueue
        | Code::PurgeInflight
        | Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::NoOffset => FaultKind::TimedOut,
        Code::QueueFull => FaultKind::Full,
        _ => FaultKind::Unreachable,
    };
    (kind, kind.usual_decision())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_follow_from_codes() {
        use RDKafkaErrorCode as Code;
        let cases = [
            (Code::MessageSizeTooLarge, FaultKind::TooLarge, Decision::Skip),
            (Code::TopicAuthorizationFailed, FaultKind::Forbidden, Decision::Stop),
            (Code::SaslAuthenticationFailed, FaultKind::Unauthorized, Decision::Stop),
            (Code::UnknownTopicOrPartition, FaultKind::Missing, Decision::Stop),
            (Code::InvalidRecord, FaultKind::Refused, Decision::Skip),
            (Code::InvalidDifferentRecord, FaultKind::Refused, Decision::Retry),
            (Code::PurgeInflight, FaultKind::TimedOut, Decision::Retry),
            (Code::NotEnoughReplicas, FaultKind::Unreachable, Decision::Retry),
            (Code::BrokerTransportFailure, FaultKind::Unreachable, Decision::Retry),
        ];
        for (code, kind, decision) in cases {
            let fault = of(&KafkaError::MessageProduction(code), "publishing");
            assert_eq!((fault.kind, fault.decision), (kind, decision), "{fault}");
        }
    }
}
