//! Every limit of the system: a name with its unit last, the reason, and what happens when it is hit.
//! Derived limits are proven below at compile time.

use std::time::Duration;

/// Longest key. Longer: 400.
pub const KEY_BYTES_MAX: usize = 4096;
/// Longest key in a store, whose keys may be those of clients with something of ours before them (the log of hints
/// does that). Longer: the file is corrupt.
pub const STORED_KEY_BYTES_MAX: usize = KEY_BYTES_MAX + 64;
/// Longest value. Longer: 413.
pub const VALUE_BYTES_MAX: usize = 8 << 20;
/// Longest body of `POST /batch`. Longer: 413.
pub const BATCH_BODY_BYTES_MAX: usize = 64 << 20;
/// Items of one `POST /batch`: what one core parses, logs and applies without looking up. More: 413.
pub const BATCH_ITEMS_MAX: usize = 65_536;
/// Longest body of `POST /put`: JSON may spell one byte as six (`\u00xx`), plus the key and the frame around it.
pub const PUT_BODY_BYTES_MAX: usize = 6 * (VALUE_BYTES_MAX + KEY_BYTES_MAX) + 4096;

/// Longest request line and header fields together. Longer: 431.
pub const HEAD_BYTES_MAX: usize = 32 << 10;
/// Longest request target: a 4 KiB key with every byte percent-encoded and its `/get?key=`. Longer: 414.
pub const TARGET_BYTES_MAX: usize = 16 << 10;
/// Most header fields of one request. More: 431.
pub const HEADER_FIELDS_MAX: usize = 100;
/// Chunk extensions and trailers of one request together. More: 400 / 431.
pub const CHUNK_OVERHEAD_BYTES_MAX: usize = 4096;

/// Requests of one connection being worked on at once; parsing stops until answers leave.
pub const PIPELINE_REQUESTS_MAX: usize = 128;
/// Unsent answer bytes of one connection above which it is not read from.
pub const OUTPUT_BYTES_HIGH: usize = 1 << 20;
/// Reads of one connection that wait for the disk or another core may come to this many bytes of answers,
/// each counted as the connection's last value was; parsing stops until some have come.
pub const READ_BYTES_GUESS: usize = 64 << 10;
/// Reads of one core that wait for the disk or another core. More: 503.
pub const READS_WAITING_MAX: usize = 1024;
/// Request bodies that have come in part and answers not sent yet, of all connections of a core. Above it the
/// connection that asks for more is refused (503) or, if it only does not read, cut.
pub const HELD_BYTES_PER_CORE_MAX: usize = 1 << 30;
/// Below this a connection is not made to pay for what others hold.
pub const HELD_BYTES_FREE: usize = 256 << 10;
/// One turn serves sockets for about this long before the rest of the core gets its turn.
pub const TURN_BUDGET: Duration = Duration::from_millis(1);
/// Connections of one core. More: answered 503 and closed.
pub const CONNECTIONS_PER_CORE_MAX: usize = 16_384;
/// Read buffer of a core, shared by its connections.
pub const READ_BUFFER_BYTES: usize = 64 << 10;

/// A request head must be complete this long after its first byte. Later: 408 and close.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A body must grow by `BODY_PROGRESS_BYTES_MIN` (or end) within each such window. Slower: 408 and close.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
pub const BODY_PROGRESS_BYTES_MIN: usize = 4096;
/// An answer the client does not read is given up after this long; the connection is cut.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle keep-alive. Longer than the 90 s of Go's client, so that the client closes first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// After an early error answer, unread body is drained up to here so that the client sees the answer (RFC 9112 9.6).
pub const LINGER_BYTES_MAX: usize = 256 << 10;
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Once asked to stop, requests in flight get this long; then their connections are cut.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// Pause of accepting when the process has no descriptors left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// While it has none, the operator hears of it once in so long.
pub const ACCEPT_WARN_INTERVAL: Duration = Duration::from_secs(60);
/// Deadlines of connections are looked at no more often than this.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Requests one core may have waiting at another core. More: 503.
pub const MESH_IN_FLIGHT_MAX: usize = 4096;
/// Level-0 tables of a shard at which its writers wait for a compaction: five times MAX_L0_FILES, at least this.
/// Every read that memory cannot answer asks each of them.
pub const L0_FILES_WAIT_MIN: usize = 20;
/// Bytes of writes waiting for a shard's WAL. More: 503.
pub const WAL_QUEUE_BYTES_MAX: usize = 96 << 20;
/// Unit of every write to disk; also the O_DIRECT alignment we assume everywhere.
pub const DISK_PAGE_BYTES: usize = 4096;

/// Scan answers up to this size carry a Content-Length; larger ones are chunked.
pub const SCAN_BUFFER_BYTES: usize = 1 << 20;
/// Rows and bytes of one page a shard hands to the merging core.
pub const SCAN_PAGE_ROWS: usize = 256;
pub const SCAN_PAGE_BYTES: usize = 64 << 10;
/// Rows that all scans of a core hold together: a page has at least one row, and a row may be 8 MiB. More: the scan
/// that asked for it fails, with 503 or, when part of its answer has left, by a cut connection.
pub const SCAN_BYTES_PER_CORE_MAX: usize = 512 << 20;
/// Scans one core merges at once. More: 503.
pub const SCANS_PER_CORE_MAX: usize = 256;

/// Body of one frame between nodes: a value of the greatest length with its key and what goes around them.
pub const FRAME_BODY_BYTES_MAX: usize = 16 << 20;
/// Requests waiting for an answer on one link to a peer. More: that replica counts as busy.
pub const PEER_REQUESTS_MAX: usize = 4096;
/// Bytes one link to a peer may have unsent. More: that replica counts as busy, and its own answers wait.
pub const PEER_UNSENT_BYTES_MAX: usize = 32 << 20;
/// Rows and bytes of one page of a comparison of replicas: a millisecond or so of a core on each side.
pub const COMPARE_ROWS: usize = 512;
pub const COMPARE_BYTES_MAX: usize = 256 << 10;
/// Rows whose versions one answer to a comparison tells, and a page of them more. What is behind them is asked again.
pub const COMPARE_HEADS_MAX: usize = 4096;
/// Rows younger than this are not compared: they may be on their way.
pub const COMPARE_AGE_MIN: Duration = Duration::from_secs(60);
/// Hints one node keeps for one other. More: only the slices are remembered, and repaired when it is back.
pub const HINT_BYTES_PER_MEMBER_MAX: u64 = 2 << 30;
/// How far ahead of our wall clock a version of another node may be for our clock to follow it, and how far our clock
/// may be from most members' before clients' writes are refused.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_millis(500);
/// A clock of a member that is farther from ours is told of in the log.
pub const CLOCK_SKEW_TOLD: Duration = Duration::from_millis(100);
/// Members of one cluster.
pub const MEMBERS_MAX: usize = 256;
/// Longest ring name: a host name of 253 bytes, a colon and a port. Longer: the node does not start.
pub const RING_NAME_BYTES_MAX: usize = 259;
/// Longest text of a topology, which travels as one header field. Longer: the node does not start.
pub const TOPOLOGY_BYTES_MAX: usize = HEAD_BYTES_MAX / 2;
/// Rows of one message: what one core applies without looking up, as for a batch. More: it is no message.
pub const MESSAGE_ROWS_MAX: usize = BATCH_ITEMS_MAX;
/// The longest end of a range in a message: as long as a client can spell one, which is longer than a key.
pub const SCAN_BOUND_BYTES_MAX: usize = TARGET_BYTES_MAX;

/// Shards of one data directory.
pub const SHARDS_MAX: u16 = 1024;

/// Observations of one `kvstore verify`, about 100 bytes each, all kept until they are judged. More: it ends early,
/// and says so.
pub const VERIFY_RECORDS_MAX: usize = 2_000_000;

/// Background work runs in slices of at most this long, each followed by a pause at least as long, so that
/// the core goes idle and the reactor turns (docs/decisions/0002-yields.md).
pub const SLICE: Duration = Duration::from_micros(200);
/// A busy core that leaves a ping unanswered for this long is wedged: the process aborts.
pub const WATCHDOG_PATIENCE: Duration = Duration::from_secs(2);

// A WAL record must fit its queue, and a batch body (values only shrink on the way from JSON) too.
const _: () = assert!(WAL_QUEUE_BYTES_MAX > BATCH_BODY_BYTES_MAX + (16 << 20));
// A key percent-encoded byte by byte fits the target.
const _: () =
    assert!(3 * KEY_BYTES_MAX + 64 <= TARGET_BYTES_MAX && TARGET_BYTES_MAX < HEAD_BYTES_MAX);
// A handshake fits a head: the topology, the names in three places, and about 500 bytes for the rest.
const _: () = assert!(TOPOLOGY_BYTES_MAX + 3 * RING_NAME_BYTES_MAX + 2048 < HEAD_BYTES_MAX);
// A record of the greatest length fits a frame.
const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + 4096 <= FRAME_BODY_BYTES_MAX);
// A lone maximal put fits into a body.
const _: () = assert!(PUT_BODY_BYTES_MAX < 64 << 20);
