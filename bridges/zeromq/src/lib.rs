//! ZeroMQ as a bus of amibus.
