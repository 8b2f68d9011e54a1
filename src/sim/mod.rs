//! Whole lives of a shard in one thread under a seed: faults, crashes, and a ledger that knows what must be true.
//!
//! ```text
//! Plan(seed)     which sizes, which mix of work, which faults: each seed turns some of them off
//!    │
//! story  ──▶  world: boot ─▶ session: open, write, read, scan ─▶ crash | kill | close ─▶ boot ─▶ ...
//!    │                          │ every promise and every answer
//!    └──────────────────────▶ ledger: what was asked, what was acknowledged, what may be read
//! ```
//!
//! The store under test is the production code, on the simulated half of `rt`. A seed replays exactly.
//!
//! What it does not do: more than one shard, HTTP, more than one node.

pub mod cluster;
pub mod history;
pub mod ledger;
pub mod plan;
pub mod session;
pub mod story;
