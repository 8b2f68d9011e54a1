//! The load generator: sees the server as HTTP and nothing else, so its numbers are honest.

pub mod answer;
pub mod clients;
pub mod drive;
pub mod history;
pub mod keys;
mod line;
pub mod once;
pub mod outcome;
pub mod pace;
pub mod plan;
pub mod report;
pub mod session;
pub mod source;
pub mod tally;
pub mod template;
pub mod values;
pub mod verify;
pub mod worker;
