//! Pure. Judges the settings that make sense only together: who the members are, and N, W and R.
//!
//! This release runs clusters of one node. Nothing about a larger one is ignored in silence: naming another
//! member, or asking for a quorum a single node cannot form, refuses the start and says which setting did it.

use std::net::IpAddr;

use super::StartError;
use super::settings::{Settings, Source};

/// What the settings mean for a cluster of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Copies of each key: what was asked for, capped to the number of members.
    pub copies: u32,
    pub write_quorum: u32,
    pub read_quorum: u32,
}

/// Members of a cluster of this release.
const MEMBERS: u32 = 1;

/// Checks peers, quorums and exposure.
pub fn judge(settings: &Settings) -> Result<Replication, StartError> {
    if let Some(other) = settings.peers.iter().find(|peer| !is_self(settings, peer)) {
        return Err(StartError::new(
            format!(
                "KVSTORE_PEERS ({}): {other} is another node, and this release runs a single node only",
                settings.source("KVSTORE_PEERS")
            ),
            "start without -peers and KVSTORE_PEERS; clusters come with the next release",
        ));
    }
    let copies = settings.replication_factor.min(MEMBERS);
    for (name, quorum) in [
        ("CLUSTER_WRITE_QUORUM", settings.write_quorum),
        ("CLUSTER_READ_QUORUM", settings.read_quorum),
    ] {
        let source = settings.source(name);
        if quorum > copies && source != Source::Default {
            return Err(StartError::new(
                format!(
                    "{name} ({source}): {quorum} copies can never answer, a single node holds {copies}"
                ),
                format!("set {name}=1; clusters come with the next release"),
            ));
        }
    }
    if let Some(open) = settings
        .listen
        .iter()
        .find(|address| !address.is_loopback())
        && !settings.insecure_no_auth
    {
        return Err(StartError::new(
            format!(
                "NET_LISTEN ({}): {open} is reachable from other machines, and this release has no access control",
                settings.source("NET_LISTEN")
            ),
            "listen on localhost, or add -insecure-no-auth to let everybody who can reach it read and write",
        ));
    }
    Ok(Replication {
        copies,
        write_quorum: settings.write_quorum.min(copies),
        read_quorum: settings.read_quorum.min(copies),
    })
}

/// Does this `host:port` name the node itself? Names other than localhost count only when they are this
/// node's `-host-names`: resolving them here would make a start depend on DNS.
fn is_self(settings: &Settings, peer: &str) -> bool {
    let Some((host, port)) = peer.rsplit_once(':') else {
        return false;
    };
    if port.parse() != Ok(settings.port) {
        return false;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || settings.listen.contains(&address),
        Err(_) => {
            host.eq_ignore_ascii_case("localhost")
                || settings
                    .host_names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(host))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Settings)) -> Result<Replication, StartError> {
        let mut settings = Settings::defaults();
        change(&mut settings);
        judge(&settings)
    }

    #[test]
    fn defaults_are_capped_to_one_copy() {
        let replication = with(|_| {}).unwrap();
        assert_eq!(replication.copies, 1);
        assert_eq!((replication.write_quorum, replication.read_quorum), (1, 1));
    }

    #[test]
    fn listing_only_oneself_is_fine() {
        for own in [
            "localhost:8081",
            "127.0.0.1:8081",
            "[::1]:8081",
            "me.example:8081",
        ] {
            let judged = with(|s| {
                s.peers = vec![own.to_string()];
                s.host_names = vec!["me.example".to_string()];
            });
            assert!(judged.is_ok(), "{own}");
        }
    }

    #[test]
    fn another_member_is_refused_by_name() {
        for other in ["localhost:8082", "10.0.0.1:8081", "db2:8081"] {
            let error = with(|s| {
                s.peers = vec!["localhost:8081".to_string(), other.to_string()];
                s.sources.insert("KVSTORE_PEERS", Source::Flag("peers"));
            })
            .unwrap_err();
            assert!(error.error.contains("KVSTORE_PEERS (-peers)"), "{error:?}");
            assert!(error.error.contains(other), "{error:?}");
        }
    }

    #[test]
    fn a_quorum_of_two_is_refused_when_asked_for() {
        for name in ["CLUSTER_WRITE_QUORUM", "CLUSTER_READ_QUORUM"] {
            let error = with(|s| {
                s.write_quorum = 2;
                s.read_quorum = 2;
                s.sources.insert(name, Source::Environment);
            })
            .unwrap_err();
            assert!(
                error.error.contains(&format!("{name} (environment)")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn an_open_address_needs_the_loud_flag() {
        let open = vec!["0.0.0.0".parse().unwrap()];
        assert!(with(|s| s.listen = open.clone()).is_err());
        assert!(
            with(|s| {
                s.listen = open;
                s.insecure_no_auth = true;
            })
            .is_ok()
        );
    }
}
