//! Whole lives in one thread under a seed, of one shard and of whole clusters: faults, crashes, and books that know
//! what must be true.
//!
//! ```text
//! Plan(seed)     which sizes, which mix of work, which faults: each seed turns some of them off
//!    │
//! story  ──▶  world: boot ─▶ session: open, write, read, scan ─▶ crash | kill | close ─▶ boot ─▶ ...
//!    │                          │ every promise and every answer
//!    └──────────────────────▶ ledger: what was asked, what was acknowledged, what may be read
//!
//! cluster  ──▶  the same for nodes with clients: what many of them saw is judged by history
//! ```
//!
//! What is under test is the production code, on the simulated half of `rt`. A seed replays exactly.

pub mod cluster;
pub mod ledger;
pub mod plan;
pub mod session;
pub mod story;
