//! HTTP as bytes: golden stories, cuts of the network, pipelines, random damage, a second parser's opinion,
//! and all of it once more through the sockets of the real program.

#![expect(
    clippy::disallowed_methods,
    reason = "tests read and rewrite golden files"
)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod connections;
mod damage;
mod routes;
mod server;
mod stories;
mod wire;
