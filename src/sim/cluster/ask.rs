//! Pure. What clients ask for: as HTTP requests, and back from the bodies of the answers.
//!
//! ```text
//! key     k3 | k3&+ %/"é | k3 and a long tail            by number; names need every kind of escape
//! value   17.aaaa..                                      as `load::answer` makes them
//! ```

use crate::base::version::Version;
use crate::http::client::{put_query_value, request as put_request};
use crate::http::request::Method;
use crate::load::answer::{Rows, value_text};
use crate::load::history::How;
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
    Put { key: u16, value: u64 },
    Delete { key: u16 },
    Batch { items: Vec<(u16, u64)> },
    Get { key: u16, after: Version, how: How },
    Scan(Rows),
}

impl Ask {
    pub(super) fn is_write(&self) -> bool {
        match self {
            Ask::Put { .. } | Ask::Delete { .. } | Ask::Batch { .. } => true,
            Ask::Get { .. } | Ask::Scan(_) => false,
        }
    }

    /// The body that says a write was done.
    pub(super) fn success(&self) -> &'static str {
        match self {
            Ask::Put { .. } => "OK",
            Ask::Delete { .. } => "Deleted",
            Ask::Batch { .. } => "Batch Processed",
            Ask::Get { .. } | Ask::Scan(_) => "",
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
            Ask::Get { .. } | Ask::Scan(_) => Vec::new(),
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
        Ask::Scan(Rows { from, to, rows_max }) => {
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
    fn keys_sort_like_their_numbers() {
        let names: Vec<String> = (0..9).map(key_name).collect();
        assert!(names.is_sorted());
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
        let scan = Ask::Scan(Rows {
            from: 0,
            to: 3,
            rows_max: Some(2),
        });
        assert_eq!(
            text(scan, Level::Default),
            "GET /scan?start=k0&end=k3&limit=2 HTTP/1.1"
        );
    }
}
