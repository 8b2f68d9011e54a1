//! Pure. What clients ask for: as HTTP requests, and back from the bodies of the answers.
//!
//! ```text
//! key     k3 | k3&+ %/"é | k3 and a long tail            by number; names need every kind of escape
//! value   17.aaaa..                                      its number and as many letters as follow from that
//! ```

use std::collections::BTreeMap;

use super::super::history::How;
use crate::base::version::Version;
use crate::http::client::{put_query_value, request as put_request};
use crate::http::request::Method;
use crate::node::cluster::Level;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    pub(super) ask: Ask,
    /// Replicas it wants.
    pub(super) level: Level,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Put {
        key: u16,
        value: u64,
    },
    Delete {
        key: u16,
    },
    Batch {
        items: Vec<(u16, u64)>,
    },
    Get {
        key: u16,
        after: Version,
        how: How,
    },
    Scan {
        from: u16,
        to: u16,
        rows_max: Option<usize>,
    },
}

impl Ask {
    pub(super) fn is_write(&self) -> bool {
        match self {
            Ask::Put { .. } | Ask::Delete { .. } | Ask::Batch { .. } => true,
            Ask::Get { .. } | Ask::Scan { .. } => false,
        }
    }

    /// The body that says a write was done.
    pub(super) fn success(&self) -> &'static str {
        match self {
            Ask::Put { .. } => "OK",
            Ask::Delete { .. } => "Deleted",
            Ask::Batch { .. } => "Batch Processed",
            Ask::Get { .. } | Ask::Scan { .. } => "",
        }
    }

    /// Keys with their new values, and whether a later item of the batch hides it.
    pub(super) fn changes(&self) -> Vec<(u16, Option<u64>, bool)> {
        match self {
            Ask::Put { key, value } => vec![(*key, Some(*value), false)],
            Ask::Delete { key } => vec![(*key, None, false)],
            Ask::Batch { items } => (0..)
                .zip(items)
                .map(|(at, &(key, value))| {
                    let hidden = items.iter().skip(at + 1).any(|later| later.0 == key);
                    (key, Some(value), hidden)
                })
                .collect(),
            Ask::Get { .. } | Ask::Scan { .. } => Vec::new(),
        }
    }
}

/// Sorted like their numbers, which have one digit.
pub(super) fn key_name(key: u16) -> String {
    match key % 3 {
        0 => format!("k{key}"),
        1 => format!("k{key}&+ %/\"é"),
        _ => format!("k{key}{}", "-long".repeat(60)),
    }
}

pub(super) fn value_text(value: u64, bytes_max: usize) -> String {
    let spread = value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let bytes = usize::try_from(spread).unwrap_or(0) % (bytes_max + 1);
    let letter = char::from(b'a' + (value % 26) as u8);
    format!("{value}.{}", String::from(letter).repeat(bytes))
}

/// The number of the value with this text.
pub(super) fn value_in(text: &[u8], bytes_max: usize) -> Result<u64, String> {
    let text = std::str::from_utf8(text).map_err(|_| "a value nobody has made".to_owned())?;
    let digits = text.split_once('.').map(|(digits, _)| digits);
    let value = digits.and_then(|digits| digits.parse().ok());
    value
        .filter(|value| value_text(*value, bytes_max) == text)
        .ok_or_else(|| "a value nobody has made".to_owned())
}

/// The keys that an answer to a scan tells about, with the values it gives them.
pub(super) fn rows_in(
    scan: &Ask,
    body: &[u8],
    keys: u16,
    value_bytes_max: usize,
) -> Result<Vec<(u16, Option<u64>)>, String> {
    let Ask::Scan { from, to, rows_max } = *scan else {
        return Ok(Vec::new());
    };
    let rows: BTreeMap<String, String> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    for (name, text) in &rows {
        let key = (from..=to).find(|key| key_name(*key) == *name);
        let key = key.ok_or_else(|| format!("{name} was not asked for"))?;
        found.insert(key, value_in(text.as_bytes(), value_bytes_max)?);
    }
    let full = rows_max.is_some_and(|rows_max| found.len() >= rows_max);
    if rows_max.is_some_and(|rows_max| found.len() > rows_max) {
        return Err("more rows than asked for".to_owned());
    }
    // Behind the last row of a full page nothing is said.
    let end = match (full, found.last_key_value()) {
        (true, Some((last, _))) => *last,
        _ => to.min(keys.saturating_sub(1)),
    };
    Ok((from..=end)
        .map(|key| (key, found.get(&key).copied()))
        .collect())
}

/// The bytes of the request.
pub(super) fn request(asking: &Asking, value_bytes_max: usize) -> Vec<u8> {
    let by_key = |path: &str, key: u16| {
        let mut target = format!("{path}?key=");
        put_query_value(&mut target, key_name(key).as_bytes());
        target
    };
    let item = |(key, value): (u16, u64)| {
        let value = value_text(value, value_bytes_max);
        serde_json::json!({ "key": key_name(key), "value": value }).to_string()
    };
    let mut fields = Vec::new();
    let (method, mut target, body) = match &asking.ask {
        Ask::Put { key, value } => (Method::Post, "/put?".to_owned(), Some(item((*key, *value)))),
        Ask::Batch { items } => {
            let items: Vec<String> = items.iter().copied().map(item).collect();
            let body = format!("{{\"items\":[{}]}}", items.join(","));
            (Method::Post, "/batch?".to_owned(), Some(body))
        }
        Ask::Delete { key } => (Method::Post, by_key("/delete", *key), None),
        Ask::Get { key, after, .. } => {
            if *after > Version::ZERO {
                fields.push(after.to_string());
            }
            (Method::Get, by_key("/get", *key), None)
        }
        Ask::Scan { from, to, rows_max } => {
            let mut target = "/scan?start=".to_owned();
            put_query_value(&mut target, key_name(*from).as_bytes());
            target.push_str("&end=");
            put_query_value(&mut target, key_name(*to).as_bytes());
            if let Some(rows_max) = rows_max {
                target.push_str(&format!("&limit={rows_max}"));
            }
            (Method::Get, target, None)
        }
    };
    target.push_str(&level_text(asking));
    let fields: Vec<(&str, &str)> = fields.iter().map(|text| ("X-KV-After", &**text)).collect();
    let mut out = Vec::new();
    let body = body.as_deref().map(str::as_bytes);
    put_request(&mut out, method, &target, "node", &fields, body);
    out
}

/// What the query says about replicas.
fn level_text(asking: &Asking) -> String {
    match asking.level {
        Level::Default => String::new(),
        Level::One => "&consistency=one".to_owned(),
        Level::Quorum => "&consistency=quorum".to_owned(),
        Level::All => "&consistency=all".to_owned(),
        Level::Exactly(needed) => {
            let name = if asking.ask.is_write() { "w" } else { "r" };
            format!("&{name}={needed}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_by_their_text_and_by_all_of_it() {
        for value in [1, 25, 26, 12_345] {
            let text = value_text(value, 50);
            assert_eq!(value_in(text.as_bytes(), 50), Ok(value));
            assert!(value_in(format!("{text}x").as_bytes(), 50).is_err());
        }
        assert!(value_in(b"x", 50).is_err());
        assert!(value_in(b"\xff", 50).is_err());
    }

    #[test]
    fn keys_sort_like_their_numbers() {
        let names: Vec<String> = (0..9).map(key_name).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn a_scan_tells_about_keys_that_are_not_there() {
        let scan = |rows_max| Ask::Scan {
            from: 0,
            to: 3,
            rows_max,
        };
        let body = br#"{"k0":"5.","k3":"6."}"#;
        let whole = vec![(0, Some(5)), (1, None), (2, None), (3, Some(6))];
        assert_eq!(rows_in(&scan(None), body, 9, 0), Ok(whole.clone()));
        assert_eq!(rows_in(&scan(Some(2)), body, 9, 0), Ok(whole.clone()));
        assert!(rows_in(&scan(Some(1)), body, 9, 0).is_err());
        let first = br#"{"k0":"5."}"#;
        assert_eq!(
            rows_in(&scan(Some(1)), first, 9, 0),
            Ok(whole[..1].to_vec())
        );
        assert!(rows_in(&scan(None), br#"{"k6":"5."}"#, 9, 0).is_err());
        assert!(rows_in(&scan(None), b"[]", 9, 0).is_err());
    }

    #[test]
    fn of_equal_keys_in_a_batch_the_last_counts() {
        let items = vec![(1, 10), (2, 11), (1, 12)];
        let changes = Ask::Batch { items }.changes();
        assert_eq!(
            changes,
            [
                (1, Some(10), true),
                (2, Some(11), false),
                (1, Some(12), false)
            ]
        );
    }

    #[test]
    fn requests_say_how_many_replicas_they_want() {
        let text = |ask, level| {
            let bytes = request(&Asking { ask, level }, 0);
            let text = String::from_utf8(bytes).expect("ASCII");
            text.lines().next().map(str::to_owned).unwrap_or_default()
        };
        let get = Ask::Get {
            key: 1,
            after: Version::ZERO,
            how: How::Get,
        };
        assert_eq!(
            text(get, Level::Exactly(2)),
            "GET /get?key=k1%26%2B%20%25/%22%C3%A9&r=2 HTTP/1.1"
        );
        let put = Ask::Put { key: 0, value: 1 };
        assert_eq!(text(put, Level::All), "POST /put?&consistency=all HTTP/1.1");
        let scan = Ask::Scan {
            from: 0,
            to: 3,
            rows_max: Some(2),
        };
        assert_eq!(
            text(scan, Level::Default),
            "GET /scan?start=k0&end=k3&limit=2 HTTP/1.1"
        );
    }
}
