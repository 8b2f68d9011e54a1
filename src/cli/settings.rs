//! Pure. Every setting once: flag, environment name, default, what is allowed, help.
//!
//! ```text
//!   flag  >  environment  >  .env  >  default            later writes win, every write is checked
//! ```
//!
//! `-help`, the README's table and the error messages come from the same rows. A bad value is refused even
//! where a stronger source overrides it: it is a mistake either way, and it would surface at the worst time.
//! What needs two settings to judge (a quorum above the number of replicas) is in [`super::cluster`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::env_file::{self, Assignment};
use super::places::{addresses, host_names, origins, peers, zones};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use crate::base::limits::SHARDS_MAX;

/// What the process was told, checked, in units of the code. One per process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub port: u16,
    pub peers: Vec<String>,
    /// How the other members reach this node, `host:port`; worked out from `peers` when absent.
    pub advertise: Option<String>,
    /// Members to be taken in whatever data directory they come with.
    pub accept_member: Vec<String>,
    pub cluster_secret: Option<String>,
    /// As typed: the banner repeats it.
    pub dir: String,
    pub listen: Vec<IpAddr>,
    pub host_names: Vec<String>,
    /// As browsers write them in `Origin`.
    pub origins: Vec<String>,
    pub insecure_no_auth: bool,
    /// `None`: as many as serving cores when the directory is created.
    pub shards: Option<u16>,
    /// `None`: every core this process may run on.
    pub cores: Option<usize>,
    pub memtable_bytes: u64,
    pub l0_files_max: usize,
    pub keys_per_block_max: usize,
    pub cache_bytes: u64,
    pub gc_grace: Duration,
    pub wal_commit_interval: Duration,
    pub wal_records_per_group_max: usize,
    pub virtual_nodes: u32,
    /// Members and their zones.
    pub zones: Vec<(String, String)>,
    pub replication_factor: u32,
    pub write_quorum: u32,
    pub read_quorum: u32,
    pub network_timeout: Duration,
    /// Zero: never.
    pub repair_interval: Duration,
    pub batch_concurrency: usize,
    pub bloom_l0: u64,
    pub bloom_l1: u64,
    /// Where each setting came from, by environment name. Settings that are absent have their default.
    pub sources: BTreeMap<&'static str, Source>,
}

/// Where a value was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Default,
    File { path: String, line: usize },
    Environment,
    Flag(&'static str),
}

/// One row of the table.
pub struct Setting {
    /// Name in the environment and in `.env`.
    pub env: &'static str,
    /// Name on the command line, without dash.
    pub flag: Option<&'static str>,
    /// Empty: worked out at the start, as `help` says.
    pub default: &'static str,
    pub help: &'static str,
    /// Checks and stores; the error is what would have been allowed.
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Longest path the kernel takes.
const PATH_BYTES_MAX: usize = 4095;
/// A refused value is shown up to here.
const VALUE_CHARS_SHOWN: usize = 200;

/// A value that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadValue {
    pub setting: &'static str,
    pub source: Source,
    pub value: String,
    pub allowed: String,
}

/// All settings, in the order people are shown them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        env: "NET_PORT",
        flag: Some("port"),
        default: "8081",
        help: "TCP port clients connect to",
        set: |s, v| put(&mut s.port, whole(v, 1..=65535)),
    },
    Setting {
        env: "KVSTORE_PEERS",
        flag: Some("peers"),
        default: "",
        help: "the members of the cluster, host:port separated by commas, with this node or without",
        set: |s, v| put(&mut s.peers, peers(v)),
    },
    Setting {
        env: "KVSTORE_ADVERTISE",
        flag: Some("advertise"),
        default: "",
        help: "how the other members reach this node, host:port as in their -peers; found in -peers or localhost:port when absent",
        set: |s, v| {
            put(
                &mut s.advertise,
                peers(v).map(|list| list.into_iter().next()),
            )
        },
    },
    Setting {
        env: "KVSTORE_ACCEPT_MEMBER",
        flag: Some("accept-member"),
        default: "",
        help: "a member that comes with a new data directory and is to be sent all it lacks, host:port as in -peers; for one start",
        set: |s, v| put(&mut s.accept_member, peers(v)),
    },
    Setting {
        env: "CLUSTER_SECRET",
        flag: None,
        default: "",
        help: "what all members know and nobody else; at least 16 bytes; without it whoever reaches the port may join in",
        set: |s, v| {
            put(
                &mut s.cluster_secret,
                Ok(Some(v.to_string()).filter(|v| !v.is_empty())),
            )
        },
    },
    Setting {
        env: "KVSTORE_DIR",
        flag: Some("dir"),
        default: "./data/node1",
        help: "data directory; created when missing",
        set: |s, v| put(&mut s.dir, path(v)),
    },
    Setting {
        env: "NET_LISTEN",
        flag: Some("listen"),
        default: "localhost",
        help: "addresses to listen on, separated by commas; any but loopback needs -insecure-no-auth",
        set: |s, v| put(&mut s.listen, addresses(v)),
    },
    Setting {
        env: "NET_HOST_NAMES",
        flag: Some("host-names"),
        default: "",
        help: "host names clients may use for this node besides localhost and IP addresses, separated by commas",
        set: |s, v| put(&mut s.host_names, host_names(v)),
    },
    Setting {
        env: "CORS_ORIGINS",
        flag: Some("cors-origins"),
        default: "",
        help: "origins whose web pages may send requests and read the answers, as https://app.example, separated by commas",
        set: |s, v| put(&mut s.origins, origins(v)),
    },
    Setting {
        env: "KVSTORE_SHARDS",
        flag: Some("shards"),
        default: "",
        help: "shards of a new data directory; as many as serving cores when absent; fixed once created",
        set: |s, v| put(&mut s.shards, whole(v, 1..=u64::from(SHARDS_MAX)).map(Some)),
    },
    Setting {
        env: "KVSTORE_CORES",
        flag: Some("cores"),
        default: "",
        help: "cores that serve; all this process may run on when absent",
        set: |s, v| put(&mut s.cores, whole(v, 1..=1024).map(Some)),
    },
    Setting {
        env: "MEMTABLE_SIZE",
        flag: None,
        default: "64MB",
        help: "memory of one shard's memtable before it is written out as a table",
        set: |s, v| put(&mut s.memtable_bytes, size(v, 64 << 10, 1 << 30)),
    },
    Setting {
        env: "MAX_L0_FILES",
        flag: None,
        default: "4",
        help: "tables in level 0 that start a compaction",
        set: |s, v| put(&mut s.l0_files_max, whole(v, 1..=1000)),
    },
    Setting {
        env: "SPARSE_INDEX_INTERVAL",
        flag: None,
        default: "128",
        help: "keys per entry of a table's index",
        set: |s, v| put(&mut s.keys_per_block_max, whole(v, 1..=4096)),
    },
    Setting {
        env: "CACHE_SIZE",
        flag: None,
        default: "256MB",
        help: "block cache of the whole node",
        set: |s, v| put(&mut s.cache_bytes, size(v, 1 << 20, 1 << 40)),
    },
    Setting {
        env: "GC_GRACE",
        flag: None,
        default: "240h",
        help: "age at which a deletion may be forgotten",
        set: |s, v| {
            put(
                &mut s.gc_grace,
                duration(v, 0, 100 * 365 * 24 * 3_600_000, "240h"),
            )
        },
    },
    Setting {
        env: "WAL_COMMIT_INTERVAL",
        flag: None,
        default: "5ms",
        help: "longest a write waits for company before the log is synced; a sync starts sooner when the disk is idle",
        set: |s, v| put(&mut s.wal_commit_interval, duration(v, 0, 1000, "5ms")),
    },
    Setting {
        env: "WAL_MAX_BATCH_SIZE",
        flag: None,
        default: "512",
        help: "most writes made durable by one sync of the log",
        set: |s, v| put(&mut s.wal_records_per_group_max, whole(v, 1..=65536)),
    },
    Setting {
        env: "CLUSTER_VIRTUAL_NODES",
        flag: None,
        default: "10",
        help: "points of each node on the hash ring",
        set: |s, v| put(&mut s.virtual_nodes, whole(v, 1..=1024)),
    },
    Setting {
        env: "CLUSTER_ZONES",
        flag: None,
        default: "",
        help: "what fails together, as localhost:8081=a,localhost:8082=b with members as in -peers; copies of a key go to different zones; the same on all members",
        set: |s, v| put(&mut s.zones, zones(v)),
    },
    Setting {
        env: "CLUSTER_REPLICATION_FACTOR",
        flag: None,
        default: "3",
        help: "copies of each key (N); never more than there are nodes",
        set: |s, v| put(&mut s.replication_factor, whole(v, 1..=255)),
    },
    Setting {
        env: "CLUSTER_WRITE_QUORUM",
        flag: None,
        default: "1",
        help: "copies on disk before a write is answered (W)",
        set: |s, v| put(&mut s.write_quorum, whole(v, 1..=255)),
    },
    Setting {
        env: "CLUSTER_READ_QUORUM",
        flag: None,
        default: "1",
        help: "copies asked before a read is answered (R)",
        set: |s, v| put(&mut s.read_quorum, whole(v, 1..=255)),
    },
    Setting {
        env: "NETWORK_TIMEOUT",
        flag: None,
        default: "2s",
        help: "longest wait for another node",
        set: |s, v| put(&mut s.network_timeout, duration(v, 1, 600_000, "2s")),
    },
    Setting {
        env: "REPAIR_INTERVAL",
        flag: None,
        default: "1h",
        help: "pause between two comparisons with the other replicas; 0s: never",
        set: |s, v| {
            put(
                &mut s.repair_interval,
                duration(v, 0, 365 * 24 * 3_600_000, "1h"),
            )
        },
    },
    Setting {
        env: "BATCH_CONCURRENCY",
        flag: None,
        default: "50",
        help: "accepted for the original's sake; a batch is one log record per shard, there are no workers to count",
        set: |s, v| put(&mut s.batch_concurrency, whole(v, 1..=65536)),
    },
    Setting {
        env: "BLOOM_SIZE_L0",
        flag: None,
        default: "650000",
        help: "filter of a level 0 table: bits per key up to 64, above that least bits per table",
        set: |s, v| put(&mut s.bloom_l0, whole(v, 1..=1 << 32)),
    },
    Setting {
        env: "BLOOM_SIZE_L1",
        flag: None,
        default: "3000000",
        help: "the same for every deeper level",
        set: |s, v| put(&mut s.bloom_l1, whole(v, 1..=1 << 32)),
    },
    Setting {
        env: "KVSTORE_INSECURE_NO_AUTH",
        flag: Some("insecure-no-auth"),
        default: "false",
        help: "serve addresses beyond loopback although anybody who reaches them may read and write everything",
        set: |s, v| put(&mut s.insecure_no_auth, truth(v)),
    },
];

impl Settings {
    /// Every setting at its default.
    #[must_use]
    pub fn defaults() -> Settings {
        let mut settings = Settings::default();
        for row in SETTINGS.iter().filter(|row| !row.default.is_empty()) {
            (row.set)(&mut settings, row.default)
                .expect("defaults are allowed values; a test says so");
        }
        settings
    }

    /// Sets one row from one source. Call in rising precedence.
    pub fn apply(&mut self, row: &Setting, value: &str, source: Source) -> Result<(), BadValue> {
        match (row.set)(self, value) {
            Ok(()) => {
                self.sources.insert(row.env, source);
                Ok(())
            }
            Err(allowed) => Err(BadValue {
                setting: row.env,
                source,
                value: value.to_string(),
                allowed,
            }),
        }
    }

    /// Sets what a `.env` file assigns. Returns a warning for each name that no setting has.
    pub fn apply_file(
        &mut self,
        path: &str,
        assignments: &[Assignment],
    ) -> Result<Vec<String>, BadValue> {
        let mut warnings = Vec::new();
        for assignment in assignments {
            let source = Source::File {
                path: path.to_string(),
                line: assignment.line,
            };
            match SETTINGS.iter().find(|row| row.env == assignment.key) {
                Some(row) => self.apply(row, &assignment.value, source)?,
                None => warnings.push(unknown(&source, &assignment.key)),
            }
        }
        Ok(warnings)
    }

    /// Sets what the process environment holds, given whole. Returns a warning for each name that looks like a
    /// setting and is none. An empty value counts as absent: scripts and containers cannot always leave it out.
    pub fn apply_environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<String>, BadValue> {
        let mut warnings = Vec::new();
        for (name, value) in variables {
            // Names of ours are ASCII; what cannot be read is somebody else's.
            let Some(name) = name.to_str() else { continue };
            let Some(row) = SETTINGS.iter().find(|row| row.env == name) else {
                if is_misspelt(name) {
                    warnings.push(unknown(&Source::Environment, name));
                }
                continue;
            };
            let value = value.into_string().map_err(|value| BadValue {
                setting: row.env,
                source: Source::Environment,
                value: value.to_string_lossy().into_owned(),
                allowed: "valid UTF-8".to_string(),
            })?;
            match env_file::plain_value(&value) {
                "" => {}
                value => self.apply(row, value, Source::Environment)?,
            }
        }
        Ok(warnings)
    }

    /// Where the value of `env` came from.
    #[must_use]
    pub fn source(&self, env: &str) -> Source {
        self.sources.get(env).cloned().unwrap_or(Source::Default)
    }
}

/// The setting whose name is most like `name`, if one is alike at all. Case does not count.
pub(super) fn nearest(name: &str) -> Option<&'static Setting> {
    let name = name.to_ascii_uppercase();
    SETTINGS
        .iter()
        .map(|row| (strsim::damerau_levenshtein(row.env, &name), row))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, row)| *distance * 4 <= row.env.len())
        .map(|(_, row)| row)
}

fn unknown(source: &Source, name: &str) -> String {
    // Some settings have the prefix and some have not: it is easily put before the wrong one.
    let bare = name.strip_prefix("KVSTORE_");
    match nearest(name).or_else(|| bare.and_then(nearest)) {
        Some(row) => format!(
            "{source}: unknown setting {name} (ignored); did you mean {}?",
            row.env
        ),
        None => format!("{source}: unknown setting {name} (ignored)"),
    }
}

/// Is this variable of the environment meant for us, although no setting is called so? The environment is full
/// of other programs' names: `KVSTORE_` is ours, the other two prefixes only when the rest fits too.
fn is_misspelt(name: &str) -> bool {
    name.starts_with("KVSTORE_")
        || (name.starts_with("CLUSTER_") || name.starts_with("NET_")) && nearest(name).is_some()
}

/// Stores a good value; a bad one leaves the old in place.
fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn path(value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > PATH_BYTES_MAX {
        return Err(format!("a path of 1 to {PATH_BYTES_MAX} bytes"));
    }
    Ok(value.to_string())
}

pub(super) fn whole<T: TryFrom<u64>>(value: &str, range: RangeInclusive<u64>) -> Result<T, String> {
    // Digits alone: Rust's own parser takes "+1".
    Some(value)
        .filter(|value| value.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|value| value.parse::<u64>().ok())
        .filter(|n| range.contains(n))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
}

fn size(value: &str, min: u64, max: u64) -> Result<u64, String> {
    parse_size(value)
        .filter(|bytes| (min..=max).contains(bytes))
        .ok_or_else(|| {
            format!(
                "a size from {} to {}, such as 67108864 or 64MB",
                show_size(min),
                show_size(max)
            )
        })
}

fn duration(value: &str, min_ms: u64, max_ms: u64, example: &str) -> Result<Duration, String> {
    let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(max_ms));
    parse_duration(value)
        .filter(|duration| (min..=max).contains(duration))
        .ok_or_else(|| {
            format!(
                "a duration from {} to {}, such as {example}",
                show_duration(min),
                show_duration(max)
            )
        })
}

/// The words Go takes for a bool.
pub(super) fn truth(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".to_string()),
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line } => write!(f, "{path}:{line}"),
            Source::Environment => f.write_str("environment"),
            Source::Flag(name) => write!(f, "-{name}"),
        }
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.value.chars().take(VALUE_CHARS_SHOWN).collect();
        let cut = if shown.len() < self.value.len() {
            "…"
        } else {
            ""
        };
        write!(
            f,
            "{} ({}): {shown:?}{cut} is not allowed",
            self.setting, self.source
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(env: &str) -> &'static Setting {
        SETTINGS.iter().find(|row| row.env == env).unwrap()
    }

    fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (OsString, OsString)> {
        let own = |&(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        pairs.iter().map(own).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn defaults_are_the_originals() {
        let settings = Settings::defaults();
        assert_eq!(settings.port, 8081);
        assert_eq!(settings.memtable_bytes, 67_108_864);
        assert_eq!(settings.l0_files_max, 4);
        assert_eq!(settings.keys_per_block_max, 128);
        assert_eq!(settings.wal_commit_interval, Duration::from_millis(5));
        assert_eq!(settings.wal_records_per_group_max, 512);
        assert_eq!(settings.virtual_nodes, 10);
        assert_eq!(
            (
                settings.replication_factor,
                settings.write_quorum,
                settings.read_quorum
            ),
            (3, 1, 1)
        );
        assert_eq!(settings.network_timeout, Duration::from_secs(2));
        assert_eq!(settings.batch_concurrency, 50);
        assert_eq!((settings.bloom_l0, settings.bloom_l1), (650_000, 3_000_000));
        assert_eq!(settings.gc_grace, Duration::from_secs(10 * 24 * 3600));
        assert_eq!(settings.cache_bytes, 256 << 20);
        assert!(settings.listen.iter().all(IpAddr::is_loopback) && settings.listen.len() == 2);
    }

    #[test]
    fn names_are_unique() {
        for (at, one) in SETTINGS.iter().enumerate() {
            for other in &SETTINGS[at + 1..] {
                assert_ne!(one.env, other.env);
                assert!(one.flag.is_none() || one.flag != other.flag);
            }
        }
    }

    #[test]
    fn flag_beats_environment_beats_file_beats_default() {
        let mut settings = Settings::defaults();
        assert_eq!(settings.source("NET_PORT"), Source::Default);
        let file = env_file::parse("NET_PORT=1001\nMAX_L0_FILES=8\n").unwrap();
        assert!(settings.apply_file(".env", &file).unwrap().is_empty());
        assert_eq!(settings.port, 1001);
        settings
            .apply_environment(environment(&[("NET_PORT", "1002   # inline")]))
            .unwrap();
        assert_eq!(
            (settings.port, settings.source("NET_PORT")),
            (1002, Source::Environment)
        );
        settings
            .apply(row("NET_PORT"), "1003", Source::Flag("port"))
            .unwrap();
        assert_eq!((settings.port, settings.l0_files_max), (1003, 8));
        assert_eq!(settings.source("NET_PORT").to_string(), "-port");
        assert_eq!(settings.source("MAX_L0_FILES").to_string(), ".env:2");
    }

    #[test]
    fn a_bad_value_names_setting_source_value_and_what_is_allowed() {
        let file = env_file::parse("\nMEMTABLE_SIZE=lots\n").unwrap();
        let bad = Settings::defaults()
            .apply_file("x/.env", &file)
            .unwrap_err();
        assert_eq!(
            bad.to_string(),
            "MEMTABLE_SIZE (x/.env:2): \"lots\" is not allowed"
        );
        assert_eq!(
            bad.allowed,
            "a size from 64 KB to 1024 MB, such as 67108864 or 64MB"
        );
    }

    #[test]
    fn every_setting_refuses_something() {
        for (env, values) in [
            ("NET_PORT", &["0", "65536", "-1", "+1", "x", ""][..]),
            (
                "KVSTORE_PEERS",
                &[
                    "localhost",
                    "a:b",
                    ":1",
                    "a:0",
                    "a:+1",
                    "http://localhost:1",
                    "a:1 b:2",
                    "a:1;b:2",
                    "::1:80",
                    "[::z]:80",
                ],
            ),
            ("KVSTORE_DIR", &[""]),
            (
                "NET_LISTEN",
                &["", "example.com", "127.0.0.1:8081", "::1,x"],
            ),
            ("NET_HOST_NAMES", &["a:1", "a b", "a/b"]),
            ("KVSTORE_SHARDS", &["0", "1025"]),
            ("KVSTORE_CORES", &["0", "two"]),
            ("MEMTABLE_SIZE", &["1KB", "2GB", "-1"]),
            ("MAX_L0_FILES", &["0", "4.5"]),
            ("SPARSE_INDEX_INTERVAL", &["0"]),
            ("CACHE_SIZE", &["1"]),
            ("GC_GRACE", &["10d", "-1h"]),
            ("REPAIR_INTERVAL", &["1", "9000h"]),
            ("WAL_COMMIT_INTERVAL", &["5", "2s"]),
            ("WAL_MAX_BATCH_SIZE", &["0"]),
            ("CLUSTER_VIRTUAL_NODES", &["0"]),
            (
                "CLUSTER_ZONES",
                &[
                    "a:1",
                    "a:1=",
                    "=x",
                    "a=x",
                    "a:1=x;b:1=y",
                    "a:1=x=y",
                    "a:1=\u{e9}",
                ],
            ),
            ("CLUSTER_REPLICATION_FACTOR", &["0"]),
            ("CLUSTER_WRITE_QUORUM", &["0"]),
            ("CLUSTER_READ_QUORUM", &["0"]),
            ("NETWORK_TIMEOUT", &["0s", "2"]),
            ("BATCH_CONCURRENCY", &["0"]),
            ("BLOOM_SIZE_L0", &["0"]),
            ("BLOOM_SIZE_L1", &["-3"]),
            ("KVSTORE_INSECURE_NO_AUTH", &["yes", ""]),
        ] {
            for value in values {
                let before = Settings::defaults();
                let mut settings = before.clone();
                let bad = settings
                    .apply(row(env), value, Source::Environment)
                    .expect_err(&format!("{env}={value}"));
                assert_eq!(bad.setting, env);
                assert!(!bad.allowed.is_empty());
                assert_eq!(settings, before, "a refused value changes nothing");
            }
        }
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let mut settings = Settings::defaults();
        let mut set = |env, value| {
            settings
                .apply(row(env), value, Source::Environment)
                .unwrap()
        };
        set("KVSTORE_PEERS", "db_1.a-b:1,10.0.0.1:2,[::1]:3");
        set("KVSTORE_PEERS", " localhost:8082 , localhost:8083,");
        set("NET_LISTEN", "localhost, 127.0.0.1,[::]");
        set("NET_HOST_NAMES", "Node1.Local");
        set("CORS_ORIGINS", "https://App.example, http://b:3000");
        assert_eq!(settings.peers, ["localhost:8082", "localhost:8083"]);
        assert_eq!(settings.listen.len(), 3);
        assert_eq!(settings.host_names, ["node1.local"]);
        assert_eq!(settings.origins, ["https://app.example", "http://b:3000"]);
        for bad in ["*", "app.example", "https://a/b", "https://"] {
            assert!(origins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_name_in_the_file_is_a_warning_with_the_nearest_name() {
        let file = env_file::parse("MEMTABLE_SIZ=1\nHOME_PAGE=x\nmax_l0_files=2\n").unwrap();
        let warnings = Settings::defaults().apply_file(".env", &file).unwrap();
        assert_eq!(
            warnings,
            [
                ".env:1: unknown setting MEMTABLE_SIZ (ignored); did you mean MEMTABLE_SIZE?",
                ".env:2: unknown setting HOME_PAGE (ignored)",
                ".env:3: unknown setting max_l0_files (ignored); did you mean MAX_L0_FILES?"
            ]
        );
    }

    #[test]
    fn an_unknown_name_in_the_environment_is_a_warning_when_it_is_meant_for_us() {
        let mut settings = Settings::defaults();
        let warnings = settings
            .apply_environment(environment(&[
                ("KVSTORE_MEMTABLE_SIZE", "1"),
                ("KVSTORE_SERVICE_HOST", "1"),
                ("CLUSTER_READ_QORUM", "1"),
                ("NET_PROT", "1"),
                ("NET_GATEWAY", "1"),
                ("CLUSTER_NAME", "x"),
                ("PATH", "/bin"),
                ("NET_PORT", ""),
                ("NET_HOST_NAMES", "  # none"),
            ]))
            .unwrap();
        assert_eq!(
            warnings,
            [
                "environment: unknown setting KVSTORE_MEMTABLE_SIZE (ignored); did you mean MEMTABLE_SIZE?",
                "environment: unknown setting KVSTORE_SERVICE_HOST (ignored)",
                "environment: unknown setting CLUSTER_READ_QORUM (ignored); did you mean CLUSTER_READ_QUORUM?",
                "environment: unknown setting NET_PROT (ignored); did you mean NET_PORT?"
            ]
        );
        assert_eq!(
            settings,
            Settings::defaults(),
            "an empty value counts as absent"
        );
    }

    #[test]
    fn an_endless_path_is_refused_in_one_short_line() {
        let path = "x".repeat(PATH_BYTES_MAX + 1);
        let bad = Settings::defaults()
            .apply(row("KVSTORE_DIR"), &path, Source::Flag("dir"))
            .unwrap_err();
        assert!(bad.to_string().len() < 300, "{bad}");
        assert!(bad.to_string().contains("x\"… is not allowed"), "{bad}");
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;
        let value = OsString::from_vec(b"./d\xff".to_vec());
        let bad = Settings::defaults()
            .apply_environment([("KVSTORE_DIR".into(), value)].into_iter())
            .unwrap_err();
        assert_eq!(
            (bad.setting, bad.allowed.as_str()),
            ("KVSTORE_DIR", "valid UTF-8")
        );
    }

    #[test]
    fn examples_are_allowed_values() {
        for row in SETTINGS {
            let bad = Settings::defaults().apply(row, "\u{0}", Source::Default);
            let example = bad.err().and_then(|bad| {
                bad.allowed
                    .split_once(", such as ")
                    .map(|it| it.1.to_string())
            });
            for example in example.iter().flat_map(|it| it.split(" or ")) {
                let applied = Settings::defaults().apply(row, example, Source::Default);
                assert_eq!(applied, Ok(()), "{}: {example}", row.env);
            }
        }
    }
}
