//! The Asterisk Manager Interface, sans-IO: frames, actions, sessions.
