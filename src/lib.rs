//! amibus bridges Asterisk to a message bus.
