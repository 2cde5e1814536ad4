//! The suite that every bridge passes against the real bus.
