//! The program as a user meets it: exit codes, what goes to which output, and the commands at work.

mod buses;
mod commands;
mod config;
mod connect;
mod demo;
mod dial;
mod plain;
mod program;
mod run;
