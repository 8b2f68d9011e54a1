//! kvstore: a distributed key-value store, one shard per core, nothing shared.
//!
//! Read the modules in this order; a module names only the rows in its "may name" cell, and a module marked
//! pure holds no `async` and touches neither clock, file, socket nor thread. `tests/tidy` parses this
//! very table and fails when the code and the table disagree.
//!
//! ```text
//! | module | may name               | pure | what it is
//! | base   |                        | yes  | words everyone shares: versions, hashes, limits, byte codecs
//! | rt     | base                   |      | the only doorway outside: cores, clock, files, sockets; real or simulated
//! | http   | base                   | yes  | HTTP/1.1 bytes <-> requests and responses
//! | wire   | base                   | yes  | bytes between nodes <-> messages
//! | store  | base rt                |      | one LSM tree, owned by one core
//! | cluster | base wire             | yes  | replication as state machines: ring, quorums, hints, failure detection
//! | node   | base rt http wire store cluster |  | joins connections, machines and stores on each core: this is the server
//! | load   | base rt http           |      | the load generator: it sees a server as HTTP and nothing else
//! | sim    | base rt http wire store cluster node load | | the whole server in one thread under a seed, with faults and a checker
//! | cli    | base rt http wire store cluster node load sim | | words typed by people: flags, settings, banner
//! ```
//!
//! What is absent on purpose: only `rt` names glommio, `std::fs`, `std::net`, `std::thread` or a clock; `store`
//! does not know that HTTP exists; `http` never asserts on input; nothing but `rt` shares memory between cores.

pub mod base;
pub mod cli;
pub mod cluster;
pub mod http;
pub mod load;
pub mod node;
pub mod rt;
pub mod sim;
pub mod store;
pub mod wire;
