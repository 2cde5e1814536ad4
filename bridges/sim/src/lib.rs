//! A simulated Asterisk: plays recorded calls, answers actions, writes literal bytes.
