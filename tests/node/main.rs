//! Real processes over real sockets: the program as a user has it.
//!
//! `process` starts, kills and stops nodes; `client` speaks just enough HTTP to check answers byte by byte,
//! and shares no code with the server. Nodes live in directories of their own below `target/tmp` and on ports
//! the kernel found free.

#![expect(
    clippy::disallowed_methods,
    reason = "tests of the outside stand outside"
)]

mod bench;
mod client;
mod cores;
mod crash;
mod edges;
mod framing;
mod large;
mod machine;
mod process;
mod readme;
mod start;
mod stop;
