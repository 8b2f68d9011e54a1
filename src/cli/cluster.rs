//! Pure. Judges the settings that make sense only together: who the members are, how they reach each other, and
//! N, W and R.
//!
//! ```text
//! -peers (with this node or without) + this node ─▶ members, each once ─▶ topology, equal on all of them
//! ```
//!
//! Members are told apart by their ring names, `host:port` as the others write it, so all must spell them alike;
//! loopback addresses count as `localhost`, or two nodes of one machine could never agree. Whether they do is
//! checked again at every handshake. What cannot work is refused at the start, and the setting is named.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::StartError;
use super::settings::{Settings, Source};
use crate::base::limits::COMPARE_AGE_MIN;
use crate::base::member::NodeId;
use crate::cluster::REPLICAS_MAX;
use crate::cluster::ring::{Member, Ring, Topology};
use crate::node::cluster::Cluster;
use crate::wire::proof::{SECRET_BYTES_MIN, Secret};

/// N, W and R as they will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Copies of each key: what was asked for, capped to the number of members.
    pub copies: u32,
    pub write_quorum: u32,
    pub read_quorum: u32,
    pub members: u32,
}

/// What the settings come to.
#[derive(Debug)]
pub struct Judged {
    pub replication: Replication,
    /// `None`: this node is alone. The addresses are still empty: finding them is not a judgement.
    pub cluster: Option<Cluster>,
    /// For the operator.
    pub notes: Vec<String>,
}

/// Checks members, quorums, secret and exposure.
pub fn judge(settings: &Settings) -> Result<Judged, StartError> {
    check_exposure(settings)?;
    let (names, own) = members(settings)?;
    let zones = zones(settings, &names)?;
    let members = names.len() as u32;
    let copies = settings.replication_factor.min(members);
    check_quorums(settings, copies, members)?;
    let replication = Replication {
        copies,
        write_quorum: settings.write_quorum.min(copies),
        read_quorum: settings.read_quorum.min(copies),
        members,
    };
    if members == 1 {
        return Ok(Judged {
            replication,
            cluster: None,
            notes: Vec::new(),
        });
    }
    let member = |name: &String| Member {
        name: name.clone(),
        zone: zones.get(name).cloned().unwrap_or_default(),
    };
    let list = names.iter().map(member).collect();
    let topology = Topology::new(list, copies as usize, settings.virtual_nodes);
    let topology = topology.map_err(|why| {
        StartError::new(
            format!(
                "KVSTORE_PEERS ({}): {why}",
                settings.source("KVSTORE_PEERS")
            ),
            "list each member once, as host:port",
        )
    })?;
    let me = topology.find(&own).unwrap_or(NodeId(0));
    let accepts = settings.accept_member.iter().map(|name| {
        format!("{name} is accepted with any data directory and sent all it lacks; leave this out at the next start")
    });
    let notes = balance(&topology).into_iter().chain(accepts).collect();
    let addresses = topology.members().iter().map(|_| Vec::new()).collect();
    let cluster = Cluster {
        me,
        addresses,
        write_quorum: replication.write_quorum as u16,
        read_quorum: replication.read_quorum as u16,
        timeout: settings.network_timeout,
        repair_every: (!settings.repair_interval.is_zero()).then_some(settings.repair_interval),
        repair_age: COMPARE_AGE_MIN,
        gc_grace: settings.gc_grace,
        secret: secret(settings)?,
        accept: accepted(settings, &topology, me)?,
        topology,
    };
    Ok(Judged {
        replication,
        cluster: Some(cluster),
        notes,
    })
}

/// All ring names, each once, and this node's own.
fn members(settings: &Settings) -> Result<(Vec<String>, String), StartError> {
    let mut names: Vec<String> = settings.peers.iter().map(|peer| ring_name(peer)).collect();
    let listed = settings.peers.iter().find(|peer| is_self(settings, peer));
    let own = match (&settings.advertise, listed) {
        (Some(name), _) => ring_name(name),
        (None, Some(peer)) => ring_name(peer),
        (None, None) => format!("localhost:{}", settings.port),
    };
    let far = names.iter().find(|name| !name.starts_with("localhost:"));
    if let Some(far) = far
        && own.starts_with("localhost:")
    {
        return Err(StartError::new(
            format!(
                "KVSTORE_PEERS ({}): {far} is on another machine, and cannot reach this node as {own}",
                settings.source("KVSTORE_PEERS")
            ),
            "say how the others reach this node: -advertise host:port, as it stands in their -peers",
        ));
    }
    names.push(own.clone());
    names.sort();
    names.dedup();
    Ok((names, own))
}

/// `host:port` as all members must spell it: lower case, and `localhost` for every loopback address.
fn ring_name(peer: &str) -> String {
    let peer = peer.to_ascii_lowercase();
    let Some((host, port)) = peer.rsplit_once(':') else {
        return peer;
    };
    let port = port.trim_start_matches('0');
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() => format!("localhost:{port}"),
        _ => format!("{host}:{port}"),
    }
}

fn check_quorums(settings: &Settings, copies: u32, members: u32) -> Result<(), StartError> {
    if copies as usize > REPLICAS_MAX {
        return Err(StartError::new(
            format!(
                "CLUSTER_REPLICATION_FACTOR ({}): {copies} copies are too many",
                settings.source("CLUSTER_REPLICATION_FACTOR")
            ),
            format!("3 or 5 are usual, at most {REPLICAS_MAX} are possible"),
        ));
    }
    for (name, quorum) in [
        ("CLUSTER_WRITE_QUORUM", settings.write_quorum),
        ("CLUSTER_READ_QUORUM", settings.read_quorum),
    ] {
        let source = settings.source(name);
        if quorum > copies && source != Source::Default {
            return Err(StartError::new(
                format!(
                    "{name} ({source}): {quorum} copies can never answer, a key has {copies} with {members} member(s)"
                ),
                format!("set {name} to at most {copies}, or name more members with -peers"),
            ));
        }
    }
    Ok(())
}

fn check_exposure(settings: &Settings) -> Result<(), StartError> {
    let mut open = settings
        .listen
        .iter()
        .filter(|address| !address.is_loopback());
    match open.next() {
        Some(open) if !settings.insecure_no_auth => Err(StartError::new(
            format!(
                "NET_LISTEN ({}): {open} is reachable from other machines, and this release has no access control",
                settings.source("NET_LISTEN")
            ),
            "listen on localhost, or add -insecure-no-auth to let everybody who can reach it read and write",
        )),
        _ => Ok(()),
    }
}

/// The zone of each member that has one, by ring name.
fn zones(settings: &Settings, names: &[String]) -> Result<BTreeMap<String, String>, StartError> {
    let mut zones = BTreeMap::new();
    for (member, zone) in &settings.zones {
        let name = ring_name(member);
        let bad = |what: &str| {
            StartError::new(
                format!(
                    "CLUSTER_ZONES ({}): {member} {what}",
                    settings.source("CLUSTER_ZONES")
                ),
                "name each member once, as it stands in -peers",
            )
        };
        if !names.contains(&name) {
            return Err(bad("is no member of this cluster"));
        }
        if zones.insert(name, zone.clone()).is_some() {
            return Err(bad("is there twice"));
        }
    }
    Ok(zones)
}

/// The other members among those to be taken in anew.
fn accepted(
    settings: &Settings,
    topology: &Topology,
    me: NodeId,
) -> Result<Vec<NodeId>, StartError> {
    let names = settings.accept_member.iter();
    let nodes = names.map(|name| {
        let found = topology.find(&ring_name(name)).filter(|node| *node != me);
        found.ok_or_else(|| {
            StartError::new(
                format!(
                    "KVSTORE_ACCEPT_MEMBER ({}): {name} is no other member of this cluster",
                    settings.source("KVSTORE_ACCEPT_MEMBER")
                ),
                "name a member as it stands in -peers, and not this node itself",
            )
        })
    });
    nodes.collect()
}

fn secret(settings: &Settings) -> Result<Option<Secret>, StartError> {
    let Some(secret) = &settings.cluster_secret else {
        return Ok(None);
    };
    Secret::new(secret.as_bytes()).map(Some).map_err(|_| {
        StartError::new(
            format!(
                "CLUSTER_SECRET ({}): shorter than {SECRET_BYTES_MIN} bytes",
                settings.source("CLUSTER_SECRET")
            ),
            "use a random one, the same on all members: openssl rand -hex 32",
        )
    })
}

/// With more members than copies, how unevenly few virtual nodes spread the data, and what more would give.
fn balance(topology: &Topology) -> Option<String> {
    const BETTER: u32 = 128;
    if topology.members().len() <= topology.copies() || topology.virtual_nodes() >= BETTER {
        return None;
    }
    let load = |topology: &Topology| Ring::new(topology).load().max_over_mean;
    let better = Topology::new(topology.members().to_vec(), topology.copies(), BETTER).ok()?;
    Some(format!(
        "the fullest member keeps {:.2} times the average with {} virtual nodes; CLUSTER_VIRTUAL_NODES={BETTER} would make it {:.2} (the same on all members)",
        load(topology),
        topology.virtual_nodes(),
        load(&better)
    ))
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

    fn with(change: impl FnOnce(&mut Settings)) -> Result<Judged, StartError> {
        let mut settings = Settings::defaults();
        change(&mut settings);
        judge(&settings)
    }

    fn peers(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn names(judged: &Judged) -> Vec<&str> {
        let members = judged.cluster.iter().flat_map(|it| it.topology.members());
        members.map(|member| member.name.as_str()).collect()
    }

    #[test]
    fn alone_defaults_are_capped_to_one_copy() {
        for own in [
            &[][..],
            &["localhost:8081"],
            &["127.0.0.1:8081", "[::1]:8081"],
            &["me.example:8081"],
        ] {
            let judged = with(|s| {
                s.peers = peers(own);
                s.host_names = peers(&["me.example"]);
            })
            .unwrap();
            let replication = judged.replication;
            let got = (
                replication.copies,
                replication.write_quorum,
                replication.read_quorum,
            );
            assert_eq!(got, (1, 1, 1), "{own:?}");
            assert!(judged.cluster.is_none(), "{own:?}");
        }
    }

    /// The original's three commands, and the same with oneself in the list.
    #[test]
    fn members_are_the_peers_and_oneself_however_they_are_listed() {
        let want = ["localhost:8081", "localhost:8082", "localhost:8083"];
        for list in [
            &["localhost:8082", "localhost:8083"][..],
            &["localhost:8081", "localhost:8082", "localhost:8083"],
            &[
                "127.0.0.1:8083",
                "LOCALHOST:8082",
                "[::1]:8081",
                "localhost:8083",
            ],
        ] {
            let judged = with(|s| s.peers = peers(list)).unwrap();
            assert_eq!(names(&judged), want, "{list:?}");
            let cluster = judged.cluster.unwrap();
            assert_eq!((cluster.me, cluster.topology.copies()), (NodeId(0), 3));
            assert_eq!((cluster.write_quorum, cluster.read_quorum), (1, 1));
        }
        let second = with(|s| {
            s.port = 8082;
            s.peers = peers(&["localhost:8081", "localhost:8083"]);
        })
        .unwrap();
        assert_eq!(names(&second), want);
        assert_eq!(second.cluster.unwrap().me, NodeId(1));
    }

    #[test]
    fn a_node_that_others_cannot_name_must_say_its_name() {
        let far = peers(&["10.0.0.2:8081", "10.0.0.3:8081"]);
        let error = with(|s| s.peers = far.clone()).unwrap_err();
        assert!(
            error.error.contains("10.0.0.2:8081 is on another machine"),
            "{error:?}"
        );
        assert!(error.hint.contains("-advertise"), "{error:?}");
        let judged = with(|s| {
            s.peers = far.clone();
            s.advertise = Some("10.0.0.1:8081".to_string());
        });
        let judged = judged.unwrap();
        assert_eq!(names(&judged)[0], "10.0.0.1:8081");
        let listed = with(|s| {
            s.peers = peers(&["10.0.0.1:8081", "10.0.0.2:8081"]);
            s.listen = vec!["10.0.0.1".parse().unwrap()];
            s.insecure_no_auth = true;
        });
        assert_eq!(listed.unwrap().cluster.unwrap().me, NodeId(0));
    }

    #[test]
    fn a_quorum_nobody_can_form_is_refused_when_asked_for() {
        for name in ["CLUSTER_WRITE_QUORUM", "CLUSTER_READ_QUORUM"] {
            let asked = |quorum: u32, list: &[&str]| {
                with(|s| {
                    s.peers = peers(list);
                    s.write_quorum = quorum;
                    s.read_quorum = quorum;
                    s.sources.insert(name, Source::Environment);
                })
            };
            let error = asked(2, &[]).unwrap_err();
            assert!(
                error.error.contains(&format!("{name} (environment)")),
                "{error:?}"
            );
            assert!(asked(2, &["localhost:8082"]).is_ok());
            assert!(asked(3, &["localhost:8082"]).is_err());
        }
        let many: Vec<String> = (1..20).map(|n| format!("localhost:{n}")).collect();
        let error = with(|s| {
            s.peers = many;
            s.replication_factor = 9;
        });
        let error = error.unwrap_err();
        assert!(
            error.error.contains("CLUSTER_REPLICATION_FACTOR"),
            "{error:?}"
        );
    }

    /// Each of them on its own, from the variable to the cluster that is run.
    #[test]
    fn n_w_and_r_are_those_of_the_environment() {
        for (n, w, r) in [
            (1, 1, 1),
            (2, 1, 2),
            (3, 3, 1),
            (3, 1, 3),
            (4, 2, 3),
            (5, 4, 1),
        ] {
            let judged = with(|s| {
                s.peers = (1..=5).map(|n| format!("localhost:808{n}")).collect();
                let pairs = [
                    ("CLUSTER_REPLICATION_FACTOR", n),
                    ("CLUSTER_WRITE_QUORUM", w),
                    ("CLUSTER_READ_QUORUM", r),
                ];
                let pairs =
                    pairs.map(|(name, number): (_, u16)| (name.into(), number.to_string().into()));
                assert!(s.apply_environment(pairs.into_iter()).unwrap().is_empty());
            });
            let cluster = judged.unwrap().cluster.unwrap();
            let got = (
                cluster.topology.copies(),
                cluster.write_quorum,
                cluster.read_quorum,
            );
            assert_eq!(got, (usize::from(n), w, r));
        }
    }

    #[test]
    fn only_another_member_can_be_accepted_anew() {
        let accepting = |name: &str| {
            with(|s| {
                s.peers = peers(&["localhost:8082", "localhost:8083"]);
                s.accept_member = peers(&[name]);
            })
        };
        let judged = accepting("127.0.0.1:8083").unwrap();
        let cluster = judged.cluster.unwrap();
        assert_eq!(
            cluster.accept,
            [cluster.topology.find("localhost:8083").unwrap()]
        );
        assert!(judged.notes[0].contains("next start"), "{:?}", judged.notes);
        for name in ["localhost:8081", "localhost:8084"] {
            let refused = accepting(name).unwrap_err();
            assert!(
                refused.error.contains("KVSTORE_ACCEPT_MEMBER"),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn zones_are_of_members_and_part_of_what_members_agree_on() {
        let zoned = |zones: &[(&str, &str)]| {
            with(|s| {
                s.peers = peers(&["localhost:8082", "localhost:8083"]);
                let owned = |(member, zone): &(&str, &str)| (member.to_string(), zone.to_string());
                s.zones = zones.iter().map(owned).collect();
            })
        };
        let topology = |zones: &[(&str, &str)]| zoned(zones).unwrap().cluster.unwrap().topology;
        let plain = topology(&[]);
        let spread = topology(&[("127.0.0.1:8081", "a"), ("LOCALHOST:8083", "b")]);
        let zones: Vec<&str> = spread.members().iter().map(|m| m.zone.as_str()).collect();
        assert_eq!(zones, ["a", "", "b"]);
        assert_ne!(spread.digest(), plain.digest());
        assert!(
            spread.fields().contains("zones=a,,b;"),
            "{}",
            spread.fields()
        );
        for (zones, told) in [
            (
                &[("localhost:8084", "a")][..],
                "localhost:8084 is no member",
            ),
            (
                &[("localhost:8082", "a"), ("127.0.0.1:8082", "b")],
                "127.0.0.1:8082 is there twice",
            ),
        ] {
            let refused = zoned(zones).unwrap_err();
            assert!(refused.error.contains("CLUSTER_ZONES"), "{refused:?}");
            assert!(refused.error.contains(told), "{refused:?}");
        }
        // A node alone has no use for them, but a wrong name is a mistake all the same.
        assert!(with(|s| s.zones = vec![("other:1".into(), "a".into())]).is_err());
    }

    #[test]
    fn a_short_secret_is_refused_and_never_shown() {
        let short = with(|s| {
            s.peers = peers(&["localhost:8082"]);
            s.cluster_secret = Some("hush".to_string());
        });
        let error = short.unwrap_err();
        assert!(error.error.contains("CLUSTER_SECRET"), "{error:?}");
        assert!(!format!("{error:?}").contains("hush"));
    }

    #[test]
    fn few_virtual_nodes_are_commented_upon() {
        let five = [
            "localhost:8082",
            "localhost:8083",
            "localhost:8084",
            "localhost:8085",
        ];
        let judged = with(|s| s.peers = peers(&five)).unwrap();
        assert!(
            judged.notes[0].contains("CLUSTER_VIRTUAL_NODES=128"),
            "{:?}",
            judged.notes
        );
        let three = with(|s| s.peers = peers(&five[..2])).unwrap();
        assert!(three.notes.is_empty());
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
