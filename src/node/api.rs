//! Pure. The route table: what a request asks for, and who may ask.
//!
//! ```text
//! path      methods            asks for
//! /put      POST PUT           one write, JSON body        /get      GET HEAD   the bytes of one key
//! /batch    POST               many writes, JSON body      /scan     GET HEAD   a range as one JSON object
//! /delete   POST DELETE        a tombstone                 /metrics /health     GET HEAD
//! /internal/peer               another member dials
//! ```
//!
//! Everything is judged before anything is done. The order is: who asks (Host, Origin), where (path), how
//! (method), what (parameters, body). Request `Content-Type` is ignored: curl and hey send misleading ones.

use std::borrow::Cow;

use super::body::{self, Item};
use super::cluster::Level;
use super::failure::Refusal;
use super::hosts::{self, Door};
use crate::base::limits::{BATCH_BODY_BYTES_MAX, KEY_BYTES_MAX, PUT_BODY_BYTES_MAX};
use crate::base::version::Version;
use crate::http::parser::UNWANTED_BODY_BYTES_MAX;
use crate::http::query;
use crate::http::request::{Method, Request};
use crate::wire::hello;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op<'a> {
    Get {
        key: Cow<'a, [u8]>,
        level: Level,
        /// Only this version or a later one will do.
        after: Version,
    },
    Put(Item<'a>, Level),
    Delete {
        key: Cow<'a, [u8]>,
        level: Level,
    },
    Batch(Vec<Item<'a>>, Level),
    Scan {
        from: Option<Cow<'a, [u8]>>,
        to: Option<Cow<'a, [u8]>>,
        rows_max: Option<u64>,
        level: Level,
    },
    /// A member dials: the connection is to become its link.
    Peer,
    Metrics,
    Health,
    /// Which methods there are.
    Options {
        allow: &'static str,
    },
}

struct Route {
    path: &'static [u8],
    target: Target,
    allow: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Put,
    Get,
    Batch,
    Scan,
    Delete,
    Metrics,
    Health,
    Peer,
}

/// Ordered by how often they are asked for.
const ROUTES: [Route; 8] = [
    Route {
        path: b"/get",
        target: Target::Get,
        allow: "GET, HEAD, OPTIONS",
    },
    Route {
        path: b"/put",
        target: Target::Put,
        allow: "POST, PUT, OPTIONS",
    },
    Route {
        path: b"/batch",
        target: Target::Batch,
        allow: "POST, OPTIONS",
    },
    Route {
        path: b"/delete",
        target: Target::Delete,
        allow: "POST, DELETE, OPTIONS",
    },
    Route {
        path: b"/scan",
        target: Target::Scan,
        allow: "GET, HEAD, OPTIONS",
    },
    Route {
        path: b"/metrics",
        target: Target::Metrics,
        allow: "GET, HEAD, OPTIONS",
    },
    Route {
        path: b"/health",
        target: Target::Health,
        allow: "GET, HEAD, OPTIONS",
    },
    Route {
        path: hello::PATH.as_bytes(),
        target: Target::Peer,
        allow: "GET",
    },
];

/// Methods of some route: the answer to `OPTIONS *`.
const ALLOW_ANY: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";

/// Body of the answer to an unknown path.
pub(crate) const ENDPOINTS: &str = "no such endpoint; there are:
  POST /put             {\"key\":\"k\",\"value\":\"v\"}
  GET  /get?key=k
  POST /batch           {\"items\":[{\"key\":\"k\",\"value\":\"v\"}]}
  GET  /scan?start=a&end=z[&limit=n]
  POST /delete?key=k
  GET  /metrics
  GET  /health";

/// What a head asks for: all of it, or with the body that is to follow.
enum Asked<'a> {
    Whole(Op<'a>),
    Put(Level),
    Batch(Level),
}

/// Longest body the parser may take in behind this head; `None`: [`decode`] refuses it whatever the body says.
pub(crate) fn judge(request: &Request<'_>, door: &Door, guarded: bool) -> Option<usize> {
    match decode_head(request, door, guarded).ok()? {
        Asked::Whole(_) => Some(UNWANTED_BODY_BYTES_MAX),
        Asked::Put(_) => Some(PUT_BODY_BYTES_MAX),
        Asked::Batch(_) => Some(BATCH_BODY_BYTES_MAX),
    }
}

/// Judges a request. `guarded`: `Host` must be a name of ours (see `hosts.rs`).
pub(crate) fn decode<'a>(
    request: &Request<'a>,
    door: &Door,
    guarded: bool,
) -> Result<Op<'a>, Refusal> {
    match decode_head(request, door, guarded)? {
        Asked::Whole(op) => Ok(op),
        Asked::Put(level) => Ok(Op::Put(body::put(request.body)?, level)),
        Asked::Batch(level) => Ok(Op::Batch(body::batch(request.body)?, level)),
    }
}

fn decode_head<'a>(
    request: &Request<'a>,
    door: &Door,
    guarded: bool,
) -> Result<Asked<'a>, Refusal> {
    if guarded && !hosts::is_ours(request.host, &door.host_names) {
        return Err(Refusal::ForeignHost);
    }
    if request.is_cross_site() && door.cors_of(request.origin).is_none() {
        return Err(Refusal::CrossSite);
    }
    if request.path == b"*" {
        return Ok(Asked::Whole(Op::Options { allow: ALLOW_ANY }));
    }
    query::check(request.query)?;
    let route = ROUTES
        .iter()
        .find(|route| route.path == request.path)
        .ok_or(Refusal::UnknownPath)?;
    let op = match (route.target, request.method) {
        (_, Method::Options) => Op::Options { allow: route.allow },
        (Target::Get, Method::Get | Method::Head) => Op::Get {
            key: key(request)?,
            level: level(request, "r")?,
            after: after(request)?,
        },
        (Target::Put, Method::Post | Method::Put) => return Ok(Asked::Put(level(request, "w")?)),
        (Target::Batch, Method::Post) => return Ok(Asked::Batch(level(request, "w")?)),
        (Target::Delete, Method::Post | Method::Delete) => Op::Delete {
            key: key(request)?,
            level: level(request, "w")?,
        },
        (Target::Peer, Method::Get) => Op::Peer,
        (Target::Scan, Method::Get | Method::Head) => Op::Scan {
            from: end(request, "start")?,
            to: end(request, "end")?,
            rows_max: rows_max(request)?,
            level: level(request, "r")?,
        },
        (Target::Metrics, Method::Get | Method::Head) => Op::Metrics,
        (Target::Health, Method::Get | Method::Head) => Op::Health,
        (
            Target::Put
            | Target::Get
            | Target::Batch
            | Target::Scan
            | Target::Delete
            | Target::Metrics
            | Target::Health
            | Target::Peer,
            Method::Get
            | Method::Head
            | Method::Post
            | Method::Put
            | Method::Delete
            | Method::Patch
            | Method::Trace,
        ) => return Err(Refusal::Method { allow: route.allow }),
    };
    Ok(Asked::Whole(op))
}

fn key<'a>(request: &Request<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
    match query::get(request.query, "key")? {
        Some(key) if key.len() > KEY_BYTES_MAX => Err(Refusal::KeyTooLong { bytes: key.len() }),
        Some(key) if !key.is_empty() => Ok(key),
        Some(_) | None => Err(Refusal::MissingKey),
    }
}

/// `?consistency=one|quorum|all`, or the number itself under `name`: `w` for writes, `r` for reads.
fn level(request: &Request<'_>, name: &str) -> Result<Level, Refusal> {
    if request.query.is_none() {
        return Ok(Level::Default);
    }
    // How many copies there are is known only later; a word that is none is refused here all the same.
    let bad = Refusal::BadLevel { copies: 1 };
    if let Some(word) = query::get(request.query, "consistency")? {
        return Level::of_word(&word).ok_or(bad);
    }
    let Some(number) = query::get(request.query, name)? else {
        return Ok(Level::Default);
    };
    std::str::from_utf8(&number)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .map(Level::Exactly)
        .ok_or(bad)
}

fn after(request: &Request<'_>) -> Result<Version, Refusal> {
    match request.after {
        Some(text) => Version::parse(text).ok_or(Refusal::BadAfter),
        None => Ok(Version::ZERO),
    }
}

/// One end of a range; empty counts as absent, as in the original.
fn end<'a>(request: &Request<'a>, name: &str) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    Ok(query::get(request.query, name)?.filter(|end| !end.is_empty()))
}

fn rows_max(request: &Request<'_>) -> Result<Option<u64>, Refusal> {
    let Some(text) = query::get(request.query, "limit")? else {
        return Ok(None);
    };
    std::str::from_utf8(&text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|rows_max| *rows_max > 0)
        .map(Some)
        .ok_or(Refusal::BadLimit)
}

impl Op<'_> {
    /// A copy that outlives the request, for one that has to wait for others.
    pub(crate) fn into_owned(self) -> Op<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        let own_item = |item: Item<'_>| Item {
            key: Cow::Owned(item.key.into_owned()),
            value: Cow::Owned(item.value.into_owned()),
        };
        match self {
            Op::Get { key, level, after } => Op::Get {
                key: own(key),
                level,
                after,
            },
            Op::Put(item, level) => Op::Put(own_item(item), level),
            Op::Delete { key, level } => Op::Delete {
                key: own(key),
                level,
            },
            Op::Batch(items, level) => Op::Batch(items.into_iter().map(own_item).collect(), level),
            Op::Scan {
                from,
                to,
                rows_max,
                level,
            } => Op::Scan {
                from: from.map(own),
                to: to.map(own),
                rows_max,
                level,
            },
            Op::Peer => Op::Peer,
            Op::Metrics => Op::Metrics,
            Op::Health => Op::Health,
            Op::Options { allow } => Op::Options { allow },
        }
    }

    /// What it does with stored data.
    pub(crate) fn access(&self) -> Access {
        match self {
            Op::Get { .. } | Op::Metrics => Access::Read,
            Op::Scan { .. } => Access::Scan,
            Op::Put(..) | Op::Delete { .. } | Op::Batch(..) => Access::Write,
            Op::Health | Op::Peer | Op::Options { .. } => Access::None,
        }
    }
}

/// Which requests of one connection must not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Scan,
    Write,
    None,
}

#[cfg(test)]
mod tests {
    use super::super::hosts::Origin;
    use super::*;
    use crate::http::parser::{Next, Parser};

    /// One request in, one line out.
    fn story(text: &str) -> String {
        let mut parser = Parser::default();
        let bytes = text.replace('\n', "\r\n");
        let door = Door {
            host_names: vec!["kv.example".into()],
            origins: vec![Origin::new("https://app.example")],
        };
        match parser.next(bytes.as_bytes(), &|head| judge(head, &door, false)) {
            Next::Request { request, .. } => match decode(&request, &door, true) {
                Ok(op) => format!("{op:?}"),
                Err(refusal) => {
                    let problem = refusal.problem();
                    format!("{} {}", problem.status.code(), problem.text)
                }
            },
            other => format!("{other:?}"),
        }
    }

    fn get(target: &str) -> String {
        story(&format!("GET {target} HTTP/1.1\nHost: localhost\n\n"))
    }

    #[test]
    fn keys_come_from_the_query() {
        assert_eq!(
            get("/get?key=a"),
            "Get { key: [97], level: Default, after: Version { hlc: 0, origin: 0 } }"
        );
        assert_eq!(
            get("/get?x=1&key=a+%2B%ff&key=b"),
            "Get { key: [97, 32, 43, 255], level: Default, after: Version { hlc: 0, origin: 0 } }"
        );
        assert_eq!(get("/get"), "400 missing query parameter: key");
        assert_eq!(get("/get?key="), "400 missing query parameter: key");
        assert_eq!(get("/get?key=%zz"), "400 bad percent-encoding");
        assert_eq!(get("/get?key=a&x=%zz"), "400 bad percent-encoding");
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(
            get(&format!("/get?key={long}")),
            "400 key is too long: 4097 bytes, at most 4096"
        );
    }

    #[test]
    fn ranges_and_limits() {
        assert_eq!(
            get("/scan"),
            "Scan { from: None, to: None, rows_max: None, level: Default }"
        );
        assert_eq!(
            get("/scan?start=a&end=&limit=10"),
            "Scan { from: Some([97]), to: None, rows_max: Some(10), level: Default }"
        );
        for bad in ["", "0", "-1", "+1", "1.5", "x", "99999999999999999999"] {
            assert_eq!(
                get(&format!("/scan?limit={bad}")),
                "400 limit must be a whole number above 0",
                "{bad}"
            );
        }
    }

    #[test]
    fn consistency_is_asked_for_in_words_or_numbers() {
        for (query, level) in [
            ("consistency=one", "One"),
            ("consistency=quorum", "Quorum"),
            ("consistency=all&r=1", "All"),
            ("r=2", "Exactly(2)"),
            ("w=2", "Default"),
        ] {
            let op = get(&format!("/get?key=a&{query}"));
            assert!(op.contains(&format!("level: {level},")), "{query}: {op}");
        }
        for bad in [
            "consistency=two",
            "consistency=",
            "r=",
            "r=x",
            "r=-1",
            "r=99999",
        ] {
            let answer = get(&format!("/get?key=a&{bad}"));
            assert!(
                answer.starts_with("400 consistency is one"),
                "{bad}: {answer}"
            );
        }
        let after = |text: &str| {
            let head = format!("GET /get?key=a HTTP/1.1\nHost: localhost\nX-KV-After: {text}\n\n");
            story(&head)
        };
        assert!(
            after("000000000000000a.00000002").contains("after: Version { hlc: 10, origin: 2 }")
        );
        assert!(after("10").starts_with("400 X-KV-After"));
    }

    #[test]
    fn methods_and_paths() {
        let with = |method: &str, target: &str| {
            story(&format!("{method} {target} HTTP/1.1\nHost: localhost\n\n"))
        };
        assert_eq!(
            with("HEAD", "/get?key=a"),
            "Get { key: [97], level: Default, after: Version { hlc: 0, origin: 0 } }"
        );
        assert_eq!(
            with("DELETE", "/delete?key=a"),
            "Delete { key: [97], level: Default }"
        );
        assert_eq!(
            with("POST", "/delete?key=a"),
            "Delete { key: [97], level: Default }"
        );
        assert_eq!(
            with("GET", "/delete?key=a"),
            "405 method not allowed; allowed: POST, DELETE, OPTIONS"
        );
        assert_eq!(
            with("PATCH", "/put"),
            "405 method not allowed; allowed: POST, PUT, OPTIONS"
        );
        assert_eq!(
            with("TRACE", "/get"),
            "405 method not allowed; allowed: GET, HEAD, OPTIONS"
        );
        assert!(with("OPTIONS", "*").starts_with("Options"));
        assert!(with("OPTIONS", "/batch").contains("POST, OPTIONS"));
        for path in ["/", "/GET", "/get/", "//get", "/../get", "/kv/a"] {
            assert!(
                with("GET", path).starts_with("404 no such endpoint"),
                "{path}"
            );
        }
    }

    #[test]
    fn bodies_are_judged_before_anything_is_done() {
        let put = |body: &str| {
            story(&format!(
                "POST /put HTTP/1.1\nHost: localhost\nContent-Length: {}\n\n{body}",
                body.len()
            ))
        };
        assert_eq!(
            put(r#"{"key":"a","value":"b"}"#),
            r#"Put(Item { key: "a", value: "b" }, Default)"#
        );
        assert_eq!(put("{}"), "400 key must be a non-empty string");
    }

    #[test]
    fn strangers_are_turned_away() {
        let from = |fields: &str| story(&format!("GET /health HTTP/1.1\n{fields}\n\n"));
        assert_eq!(from("Host: localhost:8081"), "Health");
        assert_eq!(from("Host: kv.example"), "Health");
        assert!(from("Host: evil.example").starts_with("421 "));
        assert!(from("Host: localhost\nOrigin: http://evil.example").starts_with("403 "));
        let listed = "Host: localhost\nOrigin: https://app.example\nSec-Fetch-Site: cross-site";
        assert_eq!(from(listed), "Health");
        assert!(from("Host: localhost\nOrigin: http://app.example").starts_with("403 "));
        assert!(from("Host: localhost\nSec-Fetch-Site: cross-site").starts_with("403 "));
        assert_eq!(
            from("Host: localhost:1\nOrigin: http://localhost:1"),
            "Health"
        );
    }
}
