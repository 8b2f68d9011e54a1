//! Pure. What the original prints when it starts, line by line, and a few rows of ours after `Read Quorum`.
//!
//! Scripts wait for `kv-store Node running on port`, so the last part is printed only once clients are served.

use super::VERSION;
use super::cluster::Replication;
use super::log::escape;
use super::settings::Settings;
use super::units::{show_duration, show_size};
use crate::node::Started;

const RULE: &str = "===============================================";

/// Facts of the start that are no settings.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub replication: Replication,
    pub shards: u16,
    pub cores: usize,
    /// Addresses listened on, as `host:port`, separated by commas.
    pub listen: &'a str,
}

/// Printed before anything is opened.
#[must_use]
pub fn starting(settings: &Settings, facts: &Facts<'_>) -> String {
    let mut text = format!("{RULE}\n kv-store Starting...\n{RULE}\n");
    let replication = &facts.replication;
    for (name, value) in [
        ("Port:", settings.port.to_string()),
        ("Data Directory:", escape(&settings.dir)),
        ("MemTable Size:", show_size(settings.memtable_bytes)),
        ("Virtual Nodes:", settings.virtual_nodes.to_string()),
        ("Replication (N):", replication.copies.to_string()),
        ("Write Quorum (W):", replication.write_quorum.to_string()),
        ("Read Quorum (R):", replication.read_quorum.to_string()),
        ("Shards:", facts.shards.to_string()),
        ("Cores:", facts.cores.to_string()),
        ("Listen:", facts.listen.to_string()),
        ("Version:", VERSION.to_string()),
    ] {
        text.push_str(&format!("{name:<18}{value}\n"));
    }
    let members = replication.members;
    if members > 1 {
        text.push_str(&format!("{:<18}{members} members\n", "Cluster:"));
    }
    if replication.copies < settings.replication_factor {
        let nodes = if members == 1 { "node" } else { "nodes" };
        text.push_str(&format!(
            "{:<18}{members} {nodes}, so N is {} instead of {}\n",
            "Copies:", replication.copies, settings.replication_factor
        ));
    }
    if settings.listen.iter().any(|address| !address.is_loopback()) {
        text.push_str("WARNING: no access control: everybody who can reach these addresses may read and write\n");
    }
    text.push_str(&format!("{RULE}\n"));
    text
}

/// Printed once all shards are open and every core accepts connections.
#[must_use]
pub fn running(port: u16, started: &Started) -> String {
    format!(
        "✓ Loaded {} SSTables in {}\n\
         ✓ Replayed {} WAL entries in {}\n\
         ✓ Hinted Handoff: ACTIVE\n\
         {RULE}\n kv-store Node running on port {port}\n{RULE}\n",
        started.tables,
        show_duration(started.tables_time),
        started.wal_entries,
        show_duration(started.wal_time),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The README's lines, as they stand there, with N as a cluster of one has it.
    #[test]
    fn the_originals_lines_in_the_originals_order() {
        let settings = Settings {
            replication_factor: 1,
            ..Settings::defaults()
        };
        let facts = Facts {
            replication: Replication {
                copies: 1,
                write_quorum: 1,
                read_quorum: 1,
                members: 1,
            },
            shards: 2,
            cores: 2,
            listen: "127.0.0.1:8081,[::1]:8081",
        };
        let started = Started {
            tables: 0,
            tables_time: Duration::from_micros(123),
            wal_entries: 0,
            wal_time: Duration::from_micros(45),
            ..Started::default()
        };
        let text = starting(&settings, &facts) + &running(8081, &started);
        let expected = format!(
            "\
===============================================
 kv-store Starting...
===============================================
Port:             8081
Data Directory:   ./data/node1
MemTable Size:    64 MB
Virtual Nodes:    10
Replication (N):  1
Write Quorum (W): 1
Read Quorum (R):  1
Shards:           2
Cores:            2
Listen:           127.0.0.1:8081,[::1]:8081
Version:          {VERSION}
===============================================
✓ Loaded 0 SSTables in 123µs
✓ Replayed 0 WAL entries in 45µs
✓ Hinted Handoff: ACTIVE
===============================================
 kv-store Node running on port 8081
===============================================
"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_capped_n_and_an_open_address_are_said() {
        let mut settings = Settings::defaults();
        settings.listen = vec!["0.0.0.0".parse().unwrap()];
        settings.dir = "a\nPort: 1".to_string();
        let facts = Facts {
            replication: Replication {
                copies: 1,
                write_quorum: 1,
                read_quorum: 1,
                members: 1,
            },
            shards: 1,
            cores: 1,
            listen: "0.0.0.0:8081",
        };
        let text = starting(&settings, &facts);
        assert!(
            text.contains("\nCopies:           1 node, so N is 1 instead of 3\n"),
            "{text}"
        );
        assert!(text.contains("\nWARNING: no access control"), "{text}");
        assert!(text.contains("a\\nPort: 1\n"), "no line is forged: {text}");
    }
}
