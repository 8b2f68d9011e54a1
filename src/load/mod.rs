//! The load generator: sees the server as HTTP and nothing else, so its numbers are honest.

pub mod outcome;
pub mod report;
pub mod tally;
