//! Pure. What answers of the base API say to a client that checks them: the simulator's clients and those of
//! `kvstore verify` understand them alike.
//!
//! ```text
//! value   17.aaaa..      its number and as many letters as follow from that: known by its first digits, checked to the
//!                        last byte
//! ```

use std::collections::BTreeMap;

use super::history::Outcome;
use crate::base::version::Version;

/// What has become of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer {
        status: u16,
        version: Option<Version>,
        body: Vec<u8>,
    },
    /// It was handed to the socket and is not answered: it may have been done.
    Lost,
    /// It never touched the socket.
    Unasked,
    /// No answer of our server.
    Nonsense(String),
}

impl Reply {
    /// For people.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Reply::Answer { status, body, .. } => {
                format!("{status} {}", String::from_utf8_lossy(body).trim_end())
            }
            other => format!("{other:?}"),
        }
    }
}

#[must_use]
pub fn value_text(value: u64, bytes_max: usize) -> String {
    let spread = value.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let bytes = usize::try_from(spread).unwrap_or(0) % (bytes_max + 1);
    let letter = char::from(b'a' + (value % 26) as u8);
    format!("{value}.{}", String::from(letter).repeat(bytes))
}

/// The number of the value with this text.
pub fn value_in(text: &[u8], bytes_max: usize) -> Result<u64, String> {
    let text = std::str::from_utf8(text).map_err(|_| "a value nobody has made".to_owned())?;
    let digits = text.split_once('.').map(|(digits, _)| digits);
    let value = digits.and_then(|digits| digits.parse().ok());
    value
        .filter(|value| value_text(*value, bytes_max) == text)
        .ok_or_else(|| "a value nobody has made".to_owned())
}

/// The keys a scan asks about, both ends included, by number; their names sort like the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub from: u16,
    pub to: u16,
    pub rows_max: Option<usize>,
}

/// The keys that an answer to a scan tells about, with the values it gives them; those that are not there too.
pub fn rows_in(
    body: &[u8],
    asked: Rows,
    key_name: impl Fn(u16) -> String,
    value_bytes_max: usize,
) -> Result<Vec<(u16, Option<u64>)>, String> {
    let Rows { from, to, rows_max } = asked;
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
        _ => to,
    };
    Ok((from..=end)
        .map(|key| (key, found.get(&key).copied()))
        .collect())
}

/// What the answer to a write says has become of it. `success`: the body that says it was done.
pub fn write_outcome(
    success: &str,
    status: u16,
    version: Option<Version>,
    body: &[u8],
) -> Result<Outcome, String> {
    let text = String::from_utf8_lossy(body);
    match status {
        200 if text == success => Ok(Outcome::Acked(version)),
        500.. => {
            // Some items of a batch failed: in this form of the answer it is not said which.
            let whole = !text.contains("items failed");
            let nothing =
                text.contains("outcome: not_applied") || text.contains("nothing was done");
            Ok(match whole && nothing {
                true => Outcome::NotApplied,
                false => Outcome::Unknown,
            })
        }
        _ => Err("an answer that no write gets".to_owned()),
    }
}

/// What the answer to a get says is there; `None`: that it cannot be told now.
pub fn value_got(
    status: u16,
    body: &[u8],
    value_bytes_max: usize,
) -> Result<Option<Option<u64>>, String> {
    match status {
        200 => Ok(Some(Some(value_in(body, value_bytes_max)?))),
        404 if body == b"Not Found\n" => Ok(Some(None)),
        404 => Err("an unknown 404".to_owned()),
        500.. => Ok(None),
        _ => Err("an answer that no read gets".to_owned()),
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
    fn a_scan_tells_about_keys_that_are_not_there() {
        let rows = |rows_max, body: &[u8]| {
            let asked = Rows {
                from: 0,
                to: 3,
                rows_max,
            };
            rows_in(body, asked, |key| format!("k{key}"), 0)
        };
        let body = br#"{"k0":"5.","k3":"6."}"#;
        let whole = vec![(0, Some(5)), (1, None), (2, None), (3, Some(6))];
        assert_eq!(rows(None, body), Ok(whole.clone()));
        assert_eq!(rows(Some(2), body), Ok(whole.clone()));
        assert!(rows(Some(1), body).is_err());
        assert_eq!(rows(Some(1), br#"{"k0":"5."}"#), Ok(whole[..1].to_vec()));
        assert!(rows(None, br#"{"k6":"5."}"#).is_err());
        assert!(rows(None, b"[]").is_err());
    }

    #[test]
    fn a_write_is_not_applied_only_if_that_is_certain() {
        let judge = |status, text: &str| write_outcome("OK", status, None, text.as_bytes());
        assert_eq!(judge(200, "OK"), Ok(Outcome::Acked(None)));
        assert!(judge(200, "Deleted").is_err());
        assert!(judge(404, "Not Found\n").is_err());
        assert_eq!(
            judge(503, "overloaded; nothing was done, try again\n"),
            Ok(Outcome::NotApplied)
        );
        assert_eq!(
            judge(503, "too few; outcome: not_applied\n"),
            Ok(Outcome::NotApplied)
        );
        for text in [
            "late; outcome: unknown\n",
            "1 of 3 items failed: overloaded; nothing was done, try again\n",
            "stored data cannot be read; see the node's log\n",
        ] {
            assert_eq!(judge(503, text), Ok(Outcome::Unknown), "{text}");
        }
    }

    #[test]
    fn a_get_tells_or_cannot_tell_or_lies() {
        assert_eq!(value_got(200, b"7.", 0), Ok(Some(Some(7))));
        assert_eq!(value_got(404, b"Not Found\n", 0), Ok(Some(None)));
        assert_eq!(value_got(503, b"", 0), Ok(None));
        assert!(value_got(404, b"no such page\n", 0).is_err());
        assert!(value_got(200, b"7.x", 0).is_err());
        assert!(value_got(400, b"", 0).is_err());
    }
}
