//! Pure. What two nodes say to each other, between bytes and values; the connection is carried elsewhere.
//!
//! ```text
//!  dialler                                                     answerer
//!    | GET /internal/peer, Upgrade: kvpeer/1, who I am ----------> |  hello::Hello::read_request, hello::judge
//!    | <---------- 101, who I am, my proof (or 4xx and a reason)   |  hello::Hello::answer_head
//!    | [Proof] ---------------------------------------------------> |  only with a cluster secret; proof::Secret
//!    | Ping Write Read Scan Compare, each with an id -------------> |  frame::next
//!    | <---- Pong Written Got Digest Page Same .., in any order     |  frame::put
//! ```
//!
//! Reading order: `message` (what is said; `compare`: the part about differences), `frame` (its envelope), `hello` and `proof` (who may say it).
//!
//! Invariants
//! - Requests flow from the dialler to the answerer only, answers the other way; an answer repeats the id of its
//!   request. A node that wants to ask dials its own connection, so that no two dials can cross.
//! - Decoding borrows from the input, and what it reserves is bounded by bytes that have come, never by a count
//!   or a length the bytes claim.
//! - A kind of message this version does not know is an answer (`Refused`), not the end of the connection:
//!   nodes of two versions serve together during an upgrade. Everything else unexpected is `Broken`.
//!
//! Absent on purpose: sockets, timeouts, the table of requests in flight, HTTP parsing, and encryption. The
//! proofs say who dialled whom; who can alter bytes on the way can still alter frames (a checksum is no seal).

pub mod compare;
pub mod frame;
pub mod hello;
pub mod message;
pub mod proof;

/// Golden files of bytes: hex, `#` starts the title of a block.
#[cfg(test)]
mod golden {
    /// The blocks of a file, in order, each with its title.
    pub(crate) fn blocks(file: &str) -> Vec<(&str, Vec<u8>)> {
        let mut blocks: Vec<(&str, Vec<u8>)> = Vec::new();
        for line in file.lines() {
            if let Some(title) = line.strip_prefix("# ") {
                blocks.push((title, Vec::new()));
                continue;
            }
            let (_, bytes) = blocks.last_mut().expect("a title comes first");
            let words = line.split_whitespace();
            bytes.extend(words.map(|word| u8::from_str_radix(word, 16).expect("two hex digits")));
        }
        blocks
    }
}
