//! The load generator: sees the server as HTTP and nothing else, so its numbers are honest.
//!
//! ```text
//!            plan: targets, workload, how many, how fast
//!              │
//!   source ─▶ worker ◀─▶ drive ◀══ epoll, one thread each ══▶ server
//!  (keys, values,  │
//!   template)      └─ a tally per second ─▶ recorder ─▶ outcome ─▶ text, json, csv, hlog, html ─▶ compare
//! ```
//!
//! Decisions are pure and take time as an argument; only `drive` and `once` have sockets. Latency is measured from the
//! time a request was due, not only from when it could be sent (see [`tally`]).

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
