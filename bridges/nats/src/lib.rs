//! NATS and JetStream as a bus of amibus.
