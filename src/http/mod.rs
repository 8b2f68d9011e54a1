//! HTTP/1.1 between bytes and values: no socket, no clock, no allocation for a request that is whole.
//!
//! ```text
//! bytes read --> parser::Parser --> request::Request --> (node) --> response::Frame --> bytes to write
//!                  | line + fields: head                               | date: Date + Server lines
//!                  | bodies: chunked                                   | status: codes and reasons
//! ```
//!
//! Spoken: HTTP/1.1 and 1.0, keep-alive, pipelining, `Content-Length` and `chunked` bodies, `Expect:
//! 100-continue`, origin-form, absolute-form and `OPTIONS *` targets.
//!
//! Invariants
//! - Any doubt about where a request ends is a [`status::Reject`]: one answer, then close; no byte after it is
//!   ever looked at (RFC 9112 11.2). What we accept is a subset of what httparse accepts.
//! - The outcome does not depend on how the network cut the bytes.
//! - Work is linear in the bytes received, memory is bounded by `base::limits` and by what was received, never
//!   by what a length field claims.
//!
//! Absent on purpose: compressed bodies (stored as they came), upgrades (ignored), ranges (ignored), trailers
//! (checked and dropped), any decision about routes.

mod chunked;
pub mod client;
pub mod date;
pub mod fields;
mod head;
pub mod parser;
pub mod query;
pub mod request;
pub mod response;
pub mod status;
