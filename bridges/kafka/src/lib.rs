//! Apache Kafka as a bus of amibus.
