//! Clusters of real processes on one machine: several nodes as a user has them, and what happens to nodes.
//!
//! `trio` starts, kills, pauses and looks at three nodes on loopback; `namespaces` gives each a network of its own.
//! Nothing here waits for a time to pass: tests look until what must come has come, and give up after a minute.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the outside stand outside"
)]

#[path = "../node/client.rs"]
#[expect(
    dead_code,
    reason = "raw bytes and interim answers: tests/node looks at"
)]
mod client;
#[path = "../node/process.rs"]
#[expect(dead_code, reason = "starts that fail and stops: tests/node looks at")]
mod process;

mod history;
mod load;
mod namespaces;
mod quorum;
mod strangers;
mod together;
mod trio;
mod verify;
