//! Pure. The handshake: who dials whom, as header fields of an HTTP Upgrade and of its 101.
//!
//! ```text
//! GET /internal/peer HTTP/1.1                      HTTP/1.1 101 Switching Protocols
//! Host: 10.0.0.2:8081                              Connection: Upgrade
//! Connection: Upgrade                              Upgrade: kvpeer/1
//! Upgrade: kvpeer/1                                X-KV-From: b:8081
//! X-KV-From: a:8081    ring name of the sender     X-KV-To: a:8081
//! X-KV-To: b:8081      whom it means to reach      X-KV-Node: 18c7..
//! X-KV-Node: 9f86..    32 hex digits               X-KV-Core: 3
//! X-KV-Core: 3         the core it is for          X-KV-Topology: 00c0..
//! X-KV-Topology: 00c0..  digest, 16 hex digits     X-KV-Nonce: 77aa..
//! X-KV-Nonce: 51ee..   16 hex digits, random       X-KV-Secret: yes
//! X-KV-Secret: yes     whether it has one          X-KV-Cores: 8
//! X-KV-Fields: n=3;vnodes=10;members=a:8081,..     X-KV-Shards: 8
//!                                                  X-KV-Proof: 64 hex digits, only with a secret
//! ```
//!
//! The digest decides whether two nodes agree on who owns what; the fields behind it are sent so that a refusal
//! can name what differs. They may be cut (256 members do not fit a head) and stand in the request only: a 101
//! follows only upon digests that agree.
//!
//! Both ends judge, in one order: identity, names, the secret, then the topology, so that a refusal does not tell
//! the members to a node that says it has no secret. With a secret on one end only there is no connection: an end
//! that has it would not serve the other, and silence about that would look like a broken network.
//!
//! Unknown fields are passed over (later versions may add some), known ones are judged strictly and come once.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};

use super::proof::{Ends, Mac, Role, Secret};
use crate::base::limits::{RING_NAME_BYTES_MAX, SHARDS_MAX, TOPOLOGY_BYTES_MAX};

/// Where peers dial; the route is for them only.
pub const PATH: &str = "/internal/peer";
/// The protocol asked for in `Upgrade`, with the version of its frames.
pub const PROTOCOL: &str = "kvpeer/1";
/// What an end says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Ring name of the sender; see [`is_ring_name`].
    pub from: &'a str,
    /// Ring name of whom it means: the answerer repeats the name that dialled it.
    pub to: &'a str,
    /// Identity of the sender's data directory.
    pub node: u128,
    /// In the request, the core of the answerer that the connection is for; in the answer, the core that has it
    /// (another one when there are fewer cores than the dialler thought).
    pub core: u16,
    /// Digest of the topology.
    pub topology: u64,
    /// What the digest covers, as `name=value;name=value`; a value may be a list `a,b,c`. The long ones last.
    pub fields: &'a str,
    /// Random, and never used twice.
    pub nonce: u64,
    /// Whether the sender has a cluster secret.
    pub secret: bool,
}

/// The answer to a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub hello: Hello<'a>,
    /// Cores of the answerer, at least one.
    pub cores: u16,
    /// Shards of the answerer, at least one.
    pub shards: u16,
    /// Present exactly when it has a secret; not verified yet.
    pub proof: Option<Mac>,
}

/// A head that is no handshake: answer 400 (or 426 when `field` is `Upgrade`), or hang up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    pub field: &'static str,
    pub problem: &'static str,
}

/// Why two nodes do not serve each other. The text names both, so that it can be read in either's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub field: Field,
    pub mine: String,
    pub theirs: String,
    /// Ring names of this end and of the other.
    pub ends: [String; 2],
}

/// Where two hellos disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The other end dialled another node than this one.
    Dialled,
    /// This end dialled another node than the one that answers.
    Reached,
    /// Both ends have one identity: a node that dialled itself, or a copied data directory.
    Node,
    /// One end has a cluster secret.
    Secret,
    /// The named part of the topology: they own different data, count the other node as down.
    Topology(String),
}

/// Why the dialler hangs up after a 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Mismatch(Mismatch),
    /// The node by this ring name has a different secret, or is none of ours.
    Unproven {
        from: String,
    },
}

/// Whether a text may be a ring name: printable ASCII without blanks, and without what separates names in lists.
#[must_use]
pub fn is_ring_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b",;".contains(&byte);
    (1..=RING_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

impl<'a> Hello<'a> {
    /// The whole request; `host` is the address that was dialled.
    ///
    /// # Panics
    /// When a name is none, or `host` or `fields` hold what a header field cannot: settings are checked at start.
    #[must_use]
    pub fn request_head(&self, host: &str) -> Vec<u8> {
        assert!(is_text(host) && is_text(self.fields), "checked at start");
        let mut head = format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\n");
        self.put(&mut head);
        put_field(&mut head, FIELDS, cut(self.fields));
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The whole 101 to a request that [`judge`] has passed, with the proof when there is a secret.
    ///
    /// # Panics
    /// As `request_head`, and when `self.secret` does not tell whether there is a secret.
    #[must_use]
    pub fn answer_head(
        &self,
        request: &Hello<'_>,
        cores: u16,
        shards: u16,
        secret: Option<&Secret>,
    ) -> Vec<u8> {
        assert_eq!(self.secret, secret.is_some(), "a hello tells the truth");
        let mut head = String::from("HTTP/1.1 101 Switching Protocols\r\n");
        self.put(&mut head);
        put_field(&mut head, CORES, cores);
        put_field(&mut head, SHARDS, shards);
        if let Some(secret) = secret {
            let mac = secret.prove(Role::Answerer, &Ends::of(request, self));
            let digits: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            put_field(&mut head, PROOF, digits);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// What both heads have in common.
    fn put(&self, head: &mut String) {
        assert!(
            is_ring_name(self.from) && is_ring_name(self.to),
            "ring names are checked at start"
        );
        put_field(head, CONNECTION, "Upgrade");
        put_field(head, UPGRADE, PROTOCOL);
        put_field(head, FROM, self.from);
        put_field(head, TO, self.to);
        put_field(head, NODE, format_args!("{:032x}", self.node));
        put_field(head, CORE, self.core);
        put_field(head, TOPOLOGY, format_args!("{:016x}", self.topology));
        put_field(head, NONCE, format_args!("{:016x}", self.nonce));
        put_field(head, SECRET, if self.secret { "yes" } else { "no" });
    }

    /// Reads the header fields of a request to [`PATH`].
    pub fn read_request(
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Hello<'a>, Bad> {
        Fields::collect(fields)?.hello()
    }
}

impl<'a> Answer<'a> {
    /// Reads the header fields of a 101.
    pub fn read(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Answer<'a>, Bad> {
        let fields = Fields::collect(fields)?;
        let hello = fields.hello()?;
        let proof = fields.get(PROOF).map(mac_of).transpose()?;
        match (hello.secret, proof) {
            (true, None) => return Err(bad(PROOF, "missing though there is a secret")),
            (false, Some(_)) => return Err(bad(PROOF, "there though there is no secret")),
            _ => {}
        }
        Ok(Answer {
            hello,
            cores: count_of(CORES, fields.demand(CORES)?, u16::MAX)?,
            shards: count_of(SHARDS, fields.demand(SHARDS)?, SHARDS_MAX)?,
            proof,
        })
    }

    /// What the dialler makes of it: the proof to send as the first frame, which is none without a secret. Its
    /// own proof leaves only after the other end's has been verified.
    pub fn accept(
        &self,
        mine: &Hello<'_>,
        secret: Option<&Secret>,
    ) -> Result<Option<Mac>, Refusal> {
        assert_eq!(mine.secret, secret.is_some(), "a hello tells the truth");
        judge(mine, &self.hello).map_err(Refusal::Mismatch)?;
        let Some(secret) = secret else {
            return Ok(None);
        };
        let ends = Ends::of(mine, &self.hello);
        let proven = self
            .proof
            .is_some_and(|mac| secret.verify(Role::Answerer, &ends, &mac));
        if !proven {
            return Err(Refusal::Unproven {
                from: self.hello.from.to_string(),
            });
        }
        Ok(Some(secret.prove(Role::Dialler, &ends)))
    }
}

/// Whether two nodes may serve each other; each end asks, of the hello it got. The answerer's own hello is `to`
/// whoever dialled.
pub fn judge(mine: &Hello<'_>, theirs: &Hello<'_>) -> Result<(), Mismatch> {
    let says = |has: bool| if has { "a secret" } else { "none" }.to_string();
    let (field, here, there) = if mine.node == theirs.node {
        let node = format!("{:032x}", mine.node);
        (Field::Node, node.clone(), node)
    } else if theirs.to != mine.from {
        (Field::Dialled, mine.from.to_string(), theirs.to.to_string())
    } else if theirs.from != mine.to {
        (Field::Reached, mine.to.to_string(), theirs.from.to_string())
    } else if mine.secret != theirs.secret {
        (Field::Secret, says(mine.secret), says(theirs.secret))
    } else if mine.topology != theirs.topology {
        topology_difference(mine, theirs)
    } else {
        return Ok(());
    };
    Err(Mismatch {
        field,
        mine: here,
        theirs: there,
        ends: [mine.from.to_string(), theirs.from.to_string()],
    })
}

/// The first field whose values differ; the digests when none does, for then it was cut.
fn topology_difference(mine: &Hello<'_>, theirs: &Hello<'_>) -> (Field, String, String) {
    let (here, there) = (cut(mine.fields), theirs.fields);
    let names: Vec<&str> = parts(here).map(|(name, _)| name).collect();
    // Their names are looked up in ours, which are few: never all of theirs in all of theirs.
    let foreign = parts(there)
        .map(|(name, _)| name)
        .find(|name| !names.contains(name));
    for name in names.iter().copied().chain(foreign) {
        let (mine, theirs) = (part(here, name), part(there, name));
        if mine != theirs {
            let field = Field::Topology(shown(name));
            return match (only(mine, theirs), only(theirs, mine)) {
                // The same items in another order: show the order.
                (here, there) if here == there => (field, shown(mine), shown(theirs)),
                (here, there) => (field, here, there),
            };
        }
    }
    (
        Field::Topology("digest".to_string()),
        format!("{:016x}", mine.topology),
        format!("{:016x}", theirs.topology),
    )
}

/// `name=value;name=value`, apart.
fn parts(fields: &str) -> impl Iterator<Item = (&str, &str)> {
    fields.split(';').filter_map(|part| part.split_once('='))
}

/// The value of that name; empty when there is none.
fn part<'a>(fields: &'a str, name: &str) -> &'a str {
    let mut of_name = parts(fields).filter(|(found, _)| *found == name);
    of_name.next().map_or("", |(_, value)| value)
}

/// What the first list has and the second lacks.
fn only(list: &str, other: &str) -> String {
    let others: BTreeSet<&str> = other.split(',').collect();
    let lacking: Vec<&str> = list
        .split(',')
        .filter(|item| !others.contains(item))
        .collect();
    shown(&lacking.join(","))
}

/// For one line of a log, whatever a peer sends.
fn shown(text: &str) -> String {
    match text.get(..SHOWN_BYTES_MAX) {
        Some(start) if start.len() < text.len() => format!("{start}.."),
        _ => text.to_string(),
    }
}

/// What fits a head. Printable ASCII can be cut anywhere.
fn cut(fields: &str) -> &str {
    fields.get(..TOPOLOGY_BYTES_MAX).unwrap_or(fields)
}

const CONNECTION: &str = "Connection";
const UPGRADE: &str = "Upgrade";
const FROM: &str = "X-KV-From";
const TO: &str = "X-KV-To";
const NODE: &str = "X-KV-Node";
const CORE: &str = "X-KV-Core";
const TOPOLOGY: &str = "X-KV-Topology";
const NONCE: &str = "X-KV-Nonce";
const SECRET: &str = "X-KV-Secret";
const FIELDS: &str = "X-KV-Fields";
const CORES: &str = "X-KV-Cores";
const SHARDS: &str = "X-KV-Shards";
const PROOF: &str = "X-KV-Proof";

/// Fields that come once.
const SINGLE: [&str; 11] = [
    FROM, TO, NODE, CORE, TOPOLOGY, NONCE, SECRET, FIELDS, CORES, SHARDS, PROOF,
];
const SHOWN_BYTES_MAX: usize = 200;

/// The header fields that mean something here.
struct Fields<'a> {
    values: [Option<&'a str>; SINGLE.len()],
    /// `Connection` and `Upgrade` are lists that may come in several fields (RFC 9110 5.3).
    connection: bool,
    upgrade: bool,
}

impl<'a> Fields<'a> {
    fn collect(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Fields<'a>, Bad> {
        let mut found = Fields {
            values: [None; SINGLE.len()],
            connection: false,
            upgrade: false,
        };
        for (name, value) in fields {
            if name.eq_ignore_ascii_case(CONNECTION) {
                found.connection |= lists(value, "Upgrade");
            } else if name.eq_ignore_ascii_case(UPGRADE) {
                found.upgrade |= lists(value, PROTOCOL);
            } else {
                found.keep(name, value)?;
            }
        }
        Ok(found)
    }

    fn keep(&mut self, name: &str, value: &'a [u8]) -> Result<(), Bad> {
        let mut places = SINGLE.into_iter().zip(&mut self.values);
        let Some((name, place)) = places.find(|(known, _)| known.eq_ignore_ascii_case(name)) else {
            return Ok(());
        };
        let text = str::from_utf8(value.trim_ascii()).ok();
        let text = text
            .filter(|text| is_text(text))
            .ok_or(bad(name, "not printable ASCII"))?;
        match place.replace(text) {
            None => Ok(()),
            Some(_) => Err(bad(name, "there twice")),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let mut places = SINGLE.iter().zip(self.values);
        places
            .find(|(known, _)| **known == name)
            .and_then(|(_, value)| value)
    }

    fn demand(&self, name: &'static str) -> Result<&'a str, Bad> {
        self.get(name).ok_or(bad(name, "missing"))
    }

    /// What requests and answers have in common.
    fn hello(&self) -> Result<Hello<'a>, Bad> {
        if !self.connection {
            return Err(bad(CONNECTION, "does not say Upgrade"));
        }
        if !self.upgrade {
            return Err(bad(UPGRADE, "does not name kvpeer/1"));
        }
        let fields = self.get(FIELDS).unwrap_or_default();
        if fields.len() > TOPOLOGY_BYTES_MAX {
            return Err(bad(FIELDS, "too long"));
        }
        Ok(Hello {
            from: name_of(FROM, self.demand(FROM)?)?,
            to: name_of(TO, self.demand(TO)?)?,
            node: hex_of(NODE, self.demand(NODE)?, 32)?,
            core: number_of(CORE, self.demand(CORE)?)?,
            topology: hex_of(TOPOLOGY, self.demand(TOPOLOGY)?, 16)? as u64,
            fields,
            nonce: hex_of(NONCE, self.demand(NONCE)?, 16)? as u64,
            secret: match self.demand(SECRET)? {
                "yes" => true,
                "no" => false,
                _ => return Err(bad(SECRET, "neither yes nor no")),
            },
        })
    }
}

/// Whether a comma separated list has this word, in any case.
fn lists(value: &[u8], word: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

/// What a header field can hold.
fn is_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn bad(field: &'static str, problem: &'static str) -> Bad {
    Bad { field, problem }
}

fn name_of<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Bad> {
    let problem = bad(field, "no ring name");
    is_ring_name(text).then_some(text).ok_or(problem)
}

/// Exactly so many lower-case digits: what we write, and nothing `from_str_radix` would take beside it.
fn hex_of(field: &'static str, text: &str, digits: usize) -> Result<u128, Bad> {
    if text.len() != digits {
        return Err(bad(field, "wrong number of hex digits"));
    }
    let problem = bad(field, "not lower-case hex digits");
    if !text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    {
        return Err(problem);
    }
    u128::from_str_radix(text, 16).map_err(|_| problem)
}

fn number_of(field: &'static str, text: &str) -> Result<u16, Bad> {
    let problem = bad(field, "not a number below 65536");
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem);
    }
    text.parse().map_err(|_| problem)
}

fn count_of(field: &'static str, text: &str, max: u16) -> Result<u16, Bad> {
    let count = number_of(field, text)?;
    let problem = bad(field, "out of range");
    (1..=max).contains(&count).then_some(count).ok_or(problem)
}

/// A proof as 64 digits: two halves, the first one first.
fn mac_of(text: &str) -> Result<Mac, Bad> {
    let (first, second) = text
        .split_at_checked(32)
        .ok_or(bad(PROOF, "wrong number of hex digits"))?;
    let mut mac = Mac::default();
    let halves = [hex_of(PROOF, first, 32)?, hex_of(PROOF, second, 32)?];
    for (place, half) in mac.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
        *place = half.to_be_bytes();
    }
    Ok(mac)
}

fn put_field(head: &mut String, name: &str, value: impl Display) {
    write!(head, "{name}: {value}\r\n").expect("a string takes all");
}

impl Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mine, theirs) = (&self.mine, &self.theirs);
        let [me, peer] = &self.ends;
        let or_nothing = |text: &str| match text {
            "" => "nothing more".to_string(),
            _ => text.to_string(),
        };
        match &self.field {
            Field::Node => write!(
                f,
                "{me} and {peer} are one node, {mine}: it dialled itself, or its data directory was copied"
            ),
            Field::Dialled => write!(f, "{peer} dialled {theirs} and reached {mine}"),
            Field::Reached => write!(f, "{me} dialled {mine} and reached {theirs}"),
            Field::Secret => write!(f, "cluster secret: {me} has {mine}, {peer} has {theirs}"),
            Field::Topology(name) => write!(
                f,
                "topology differs in {name}: {me} has {}, {peer} has {}",
                or_nothing(mine),
                or_nothing(theirs)
            ),
        }
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Mismatch(mismatch) => mismatch.fmt(f),
            Refusal::Unproven { from } => write!(f, "{from} does not know our cluster secret"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::HEAD_BYTES_MAX;

    const GOLDEN: &str = include_str!("../../tests/golden/wire/hello.txt");

    fn secret() -> Secret {
        Secret::new(b"correct horse battery").unwrap()
    }

    fn dialler() -> Hello<'static> {
        Hello {
            from: "a:8081",
            to: "b:8081",
            node: 0x9f86_d081_884c_7d65_9a2f_eaa0_c55a_d015,
            core: 3,
            topology: 0x00c0_ffee_0000_0001,
            fields: "n=3;vnodes=10;members=a:8081,b:8081,c:8081",
            nonce: 0x51ee_0000_dead_beef,
            secret: true,
        }
    }

    fn answerer() -> Hello<'static> {
        Hello {
            from: "b:8081",
            to: "a:8081",
            node: 0x18c7_0000_0000_0000_0000_0000_0000_0002,
            nonce: 0x77aa_0000_0000_0004,
            ..dialler()
        }
    }

    fn answer_head() -> Vec<u8> {
        answerer().answer_head(&dialler(), 8, 16, Some(&secret()))
    }

    /// The blocks of the golden file, with the line ends of HTTP.
    fn golden() -> Vec<String> {
        GOLDEN
            .split("# ")
            .skip(1)
            .map(|block| {
                let (_, text) = block.split_once('\n').unwrap();
                text.replace('\n', "\r\n")
            })
            .collect()
    }

    /// Header fields of a head, as an HTTP parser gives them.
    fn fields(head: &[u8]) -> Vec<(&str, &[u8])> {
        head.split(|&byte| byte == b'\n')
            .skip(1)
            .filter_map(|line| {
                let colon = line.iter().position(|&byte| byte == b':')?;
                Some((str::from_utf8(&line[..colon]).ok()?, &line[colon + 1..]))
            })
            .collect()
    }

    /// Made by tests/golden/wire/hello.py, whose HMAC is another one.
    #[test]
    fn golden_handshake_both_ways() {
        let golden = golden();
        let request = dialler().request_head("10.0.0.2:8081");
        assert_eq!(String::from_utf8(request.clone()).unwrap(), golden[0]);
        assert_eq!(Hello::read_request(fields(&request)), Ok(dialler()));
        let head = answer_head();
        assert_eq!(String::from_utf8(head.clone()).unwrap(), golden[1]);
        let answer = Answer::read(fields(&head)).unwrap();
        let without_fields = Hello {
            fields: "",
            ..answerer()
        };
        assert_eq!(answer.hello, without_fields);
        assert_eq!((answer.cores, answer.shards), (8, 16));
        let mac = answer.accept(&dialler(), Some(&secret())).unwrap().unwrap();
        let digits: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("{digits}\r\n"), golden[2]);
        let ends = Ends::of(&dialler(), &answerer());
        assert!(secret().verify(Role::Dialler, &ends, &mac));
    }

    #[test]
    fn without_a_secret_nothing_is_proven() {
        let open = |hello: Hello<'static>| Hello {
            secret: false,
            ..hello
        };
        let head = open(answerer()).answer_head(&open(dialler()), 1, 1, None);
        assert!(!String::from_utf8(head.clone()).unwrap().contains(PROOF));
        let answer = Answer::read(fields(&head)).unwrap();
        assert_eq!(answer.accept(&open(dialler()), None), Ok(None));
    }

    #[test]
    fn an_end_with_a_secret_refuses_one_without_and_says_so() {
        let open = Hello {
            secret: false,
            ..dialler()
        };
        let refused = judge(&answerer(), &open).unwrap_err();
        assert_eq!(refused.field, Field::Secret);
        assert_eq!(
            refused.to_string(),
            "cluster secret: b:8081 has a secret, a:8081 has none"
        );
        let refused = judge(&open, &answerer()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "cluster secret: a:8081 has none, b:8081 has a secret"
        );
    }

    #[test]
    fn the_dialler_proves_nothing_to_an_end_that_has_not_proven_itself() {
        let accept = |head: &[u8]| {
            Answer::read(fields(head))
                .unwrap()
                .accept(&dialler(), Some(&secret()))
        };
        assert!(accept(&answer_head()).is_ok());
        let other = Secret::new(b"incorrect horse battery").unwrap();
        let refusal = accept(&answerer().answer_head(&dialler(), 8, 16, Some(&other)));
        let unproven = Refusal::Unproven {
            from: "b:8081".to_string(),
        };
        assert_eq!(refusal, Err(unproven.clone()));
        assert_eq!(
            unproven.to_string(),
            "b:8081 does not know our cluster secret"
        );
        // A proof overheard from an earlier connection.
        let earlier = Hello {
            nonce: 1,
            ..dialler()
        };
        let replayed = answerer().answer_head(&earlier, 8, 16, Some(&secret()));
        assert_eq!(accept(&replayed), Err(unproven));
    }

    /// What each end says of the other's hello.
    #[test]
    fn judgements() {
        let judged = |change: fn(&mut Hello<'static>)| {
            let mut theirs = dialler();
            change(&mut theirs);
            let judged = judge(&answerer(), &theirs);
            judged.map_err(|mismatch| mismatch.to_string())
        };
        let text = |change| judged(change).unwrap_err();
        assert_eq!(judged(|_| {}), Ok(()));
        assert_eq!(judged(|theirs| theirs.core = 9), Ok(()));
        assert_eq!(
            text(|theirs| theirs.to = "c:8081"),
            "a:8081 dialled c:8081 and reached b:8081"
        );
        assert_eq!(
            text(|theirs| theirs.from = "c:8081"),
            "b:8081 dialled a:8081 and reached c:8081"
        );
        assert_eq!(
            text(|theirs| theirs.node = answerer().node),
            "b:8081 and a:8081 are one node, 18c70000000000000000000000000002: \
             it dialled itself, or its data directory was copied"
        );
        let with = |fields| {
            let theirs = Hello {
                fields,
                topology: 5,
                ..dialler()
            };
            judge(&answerer(), &theirs).unwrap_err().to_string()
        };
        assert_eq!(
            with("n=3;vnodes=128;members=a:8081,b:8081,c:8081"),
            "topology differs in vnodes: b:8081 has 10, a:8081 has 128"
        );
        assert_eq!(
            with("n=3;vnodes=10;members=a:8081,b:8081,d:8081"),
            "topology differs in members: b:8081 has c:8081, a:8081 has d:8081"
        );
        assert_eq!(
            with("n=3;vnodes=10;members=a:8081,b:8081"),
            "topology differs in members: b:8081 has c:8081, a:8081 has nothing more"
        );
        assert_eq!(
            with("n=3;vnodes=10;members=a:8081,c:8081,b:8081"),
            "topology differs in members: b:8081 has a:8081,b:8081,c:8081, a:8081 has a:8081,c:8081,b:8081"
        );
        assert_eq!(
            with("n=3;vnodes=10;members=a:8081,b:8081,c:8081;zone=x"),
            "topology differs in zone: b:8081 has nothing more, a:8081 has x"
        );
        for nothing_said in ["n=3;vnodes=10;members=a:8081,b:8081,c:8081", ""] {
            assert!(!with(nothing_said).is_empty());
        }
        assert_eq!(
            with(dialler().fields),
            "topology differs in digest: b:8081 has 00c0ffee00000001, a:8081 has 0000000000000005"
        );
    }

    #[test]
    fn a_secret_is_asked_for_before_the_topology_is_told() {
        let theirs = Hello {
            secret: false,
            topology: 5,
            fields: "",
            ..dialler()
        };
        let refused = judge(&answerer(), &theirs).unwrap_err();
        assert_eq!(refused.field, Field::Secret);
        assert!(!refused.to_string().contains("c:8081"));
    }

    #[test]
    fn bad_fields_are_named() {
        let head = answer_head();
        // Replaces one value, or with `None` drops the field.
        let with = |name: &str, value: Option<&str>| {
            let mut fields = fields(&head);
            fields.retain(|(known, _)| *known != name);
            fields.extend(value.map(|value| (name, value.as_bytes())));
            let read = Answer::read(fields);
            read.map(|_| ()).map_err(|bad| bad.to_string())
        };
        for name in SINGLE {
            if name == FIELDS {
                continue;
            }
            let missing = match name {
                PROOF => "missing though there is a secret",
                _ => "missing",
            };
            assert_eq!(with(name, None), Err(format!("{name}: {missing}")));
            let once_more = fields(&head).into_iter().chain([(name, &b"x"[..])]);
            let twice = bad(name, "there twice");
            assert_eq!(Answer::read(once_more), Err(twice));
            assert!(with(name, Some("\u{e9}")).is_err(), "{name}");
        }
        let long = "f".repeat(TOPOLOGY_BYTES_MAX + 1);
        let rows = [
            (CONNECTION, "close", "does not say Upgrade"),
            (UPGRADE, "h2c, kvpeer/2", "does not name kvpeer/1"),
            (FROM, "a b", "no ring name"),
            (TO, "", "no ring name"),
            (NODE, "9f86", "wrong number of hex digits"),
            (TOPOLOGY, "+0c0ffee00000001", "not lower-case hex digits"),
            (NONCE, "00C0FFEE00000001", "not lower-case hex digits"),
            (CORE, "+3", "not a number below 65536"),
            (CORE, "", "not a number below 65536"),
            (CORE, "65536", "not a number below 65536"),
            (CORES, "0", "out of range"),
            (SHARDS, "1025", "out of range"),
            (SECRET, "YES", "neither yes nor no"),
            (SECRET, "no", ""),
            (FROM, "a\nb", "not printable ASCII"),
            (PROOF, "00", "wrong number of hex digits"),
            (FIELDS, &long, "too long"),
        ];
        for (name, value, problem) in rows {
            let wanted = match problem {
                "" => "X-KV-Proof: there though there is no secret".to_string(),
                _ => format!("{name}: {problem}"),
            };
            assert_eq!(with(name, Some(value)), Err(wanted), "{name} = {value}");
        }
        assert!(with("X-KV-Later", Some("anything")).is_ok());
        assert!(with(UPGRADE, Some("kvpeer/2, KVPEER/1")).is_ok());
        assert!(with(CONNECTION, Some("keep-alive, upgrade")).is_ok());
    }

    #[test]
    fn a_topology_too_long_for_a_head_is_cut_and_still_told_apart() {
        let members: Vec<String> = (0..256)
            .map(|at| format!("{at:0>250}.example:8081"))
            .collect();
        let with = |n: u32| format!("n={n};vnodes=10;members={}", members.join(","));
        let (here, there) = (with(3), with(5));
        let mine = Hello {
            fields: &here,
            ..answerer()
        };
        let theirs = Hello {
            fields: &there,
            topology: 5,
            ..dialler()
        };
        let head = theirs.request_head("b:8081");
        assert!(head.len() < HEAD_BYTES_MAX, "{}", head.len());
        let read = Hello::read_request(fields(&head)).unwrap();
        let refused = judge(&mine, &read).unwrap_err();
        assert_eq!(refused.field, Field::Topology("n".to_string()));
        // Only what was cut differs.
        let same_start = Hello {
            fields: &here,
            ..theirs
        };
        let head = same_start.request_head("b:8081");
        let read = Hello::read_request(fields(&head)).unwrap();
        let refused = judge(&mine, &read).unwrap_err();
        assert_eq!(refused.field, Field::Topology("digest".to_string()));
    }

    /// A refusal goes into a log: a peer cannot make it long.
    #[test]
    fn refusals_are_short_whatever_a_peer_sends() {
        let junk = [
            "x=".repeat(8000),
            format!("n={}", "9".repeat(16_000)),
            format!("{}=1", "k".repeat(16_000)),
            format!("n=3;vnodes=10;members={}", "z,".repeat(8000)),
            "a=;".repeat(5000),
        ];
        for fields in &junk {
            let theirs = Hello {
                fields,
                topology: 5,
                ..dialler()
            };
            let text = judge(&answerer(), &theirs).unwrap_err().to_string();
            assert!(text.len() < 800, "{text}");
        }
    }

    #[test]
    fn ring_names_are_what_a_list_and_a_field_can_hold() {
        let longest = "n".repeat(RING_NAME_BYTES_MAX);
        for name in ["a", "10.0.0.1:8081", "[::1]:8081", "node_7=x", &longest] {
            assert!(is_ring_name(name), "{name}");
        }
        let longer = format!("{longest}n");
        for name in ["", "a b", "a,b", "a;b", "a\r\nX: y", "\u{e9}", &longer] {
            assert!(!is_ring_name(name), "{name}");
        }
    }

    /// Any damage to a head either keeps it readable or is a `Bad`; what is read obeys the limits.
    #[test]
    fn damaged_heads_are_judged_without_a_panic() {
        let seed = 5;
        let mut rng = fastrand::Rng::with_seed(seed);
        let heads = [dialler().request_head("b:8081"), answer_head()];
        let (mut good, mut bad) = (0, 0);
        for round in 0..20_000 {
            let mut head = heads[round % 2].clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..head.len());
                match rng.u8(0..4) {
                    0 => head[at] = rng.u8(..),
                    1 => head[at] ^= 1 << rng.u8(0..8),
                    2 => head.truncate(at.max(8)),
                    _ => drop(head.remove(at)),
                }
            }
            let hello = match round % 2 {
                0 => Hello::read_request(fields(&head)),
                _ => Answer::read(fields(&head)).map(|answer| answer.hello),
            };
            match hello {
                Ok(hello) => {
                    good += 1;
                    assert!(is_ring_name(hello.from) && is_ring_name(hello.to));
                    assert!(is_text(hello.fields), "seed {seed} round {round}");
                }
                Err(_) => bad += 1,
            }
        }
        assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
    }
}
