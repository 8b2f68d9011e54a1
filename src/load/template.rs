//! Pure. Text with places that differ from request to request: `{"key":"bench:{{.RequestNumber}}"}`.
//!
//! | place | stands for |
//! |---|---|
//! | `{{.RequestNumber}}`, `{{seq}}` | the number of the request, from 0 |
//! | `{{rand 1000}}` | a number below 1000 |
//! | `{{uuid}}` | a random UUID (version 4) |
//! | `{{key}}` | a key of the key space, by `-dist` and `-key-format` |

use std::fmt::Write;

use super::keys::KeyFormat;

/// A parsed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number,
    Below(u64),
    Uuid,
    Key,
}

/// What fills the places of one request.
pub struct Filling<'a> {
    pub number: u64,
    pub key: u64,
    pub keys: &'a KeyFormat,
    pub rng: &'a mut fastrand::Rng,
}

impl Template {
    /// Err: the byte it is about, and what is wrong there.
    pub fn parse(text: &str) -> Result<Template, (usize, String)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once("{{") {
            let at = text.len() - inside.len() - 2;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_string()));
            }
            let (inside, after) = inside
                .split_once("}}")
                .ok_or_else(|| (at, "{{ without }}".to_string()))?;
            let mut words = inside.split_whitespace();
            let part = match (words.next(), words.next(), words.next()) {
                (Some(".RequestNumber" | "seq"), None, None) => Part::Number,
                (Some("uuid"), None, None) => Part::Uuid,
                (Some("key"), None, None) => Part::Key,
                (Some("rand"), Some(below), None) => below
                    .parse()
                    .ok()
                    .filter(|below| *below > 0)
                    .map(Part::Below)
                    .ok_or_else(|| (at, format!("{{{{rand {below}}}}} needs a number above 0")))?,
                _ => {
                    let known = "{{.RequestNumber}}, {{seq}}, {{rand 1000}}, {{uuid}} and {{key}}";
                    return Err((at, format!("{{{{{inside}}}}} is none of {known}")));
                }
            };
            parts.push(part);
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_string()));
        }
        Ok(Template { parts })
    }

    /// Whether it is the same for all requests.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.parts.contains(&Part::Key)
    }

    pub fn put(&self, out: &mut Vec<u8>, filling: &mut Filling<'_>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Number => crate::http::response::put_decimal(out, filling.number),
                Part::Below(below) => {
                    crate::http::response::put_decimal(out, filling.rng.u64(..*below));
                }
                Part::Key => filling.keys.put(out, filling.key),
                Part::Uuid => out.extend_from_slice(uuid(filling.rng).as_bytes()),
            }
        }
    }
}

/// RFC 9562, version 4.
fn uuid(rng: &mut fastrand::Rng) -> String {
    let bits = rng.u128(..) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = String::with_capacity(36);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, number: u64) -> String {
        let mut out = Vec::new();
        Template::parse(text).unwrap().put(
            &mut out,
            &mut Filling {
                number,
                key: 5,
                keys: &"k{seq:3}".parse().unwrap(),
                rng: &mut fastrand::Rng::with_seed(1),
            },
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn places_are_filled() {
        let body = r#"{"key":"bench:{{.RequestNumber}}","value":"data"}"#;
        assert_eq!(filled(body, 17), r#"{"key":"bench:17","value":"data"}"#);
        assert_eq!(filled("{{ seq }}-{{key}}{", 3), "3-k005{");
        assert_eq!(filled("{{rand 1}}", 0), "0");
        let uuid = filled("{{uuid}}", 0);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "{uuid}");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
        assert!(Template::parse("{\"a\":{}}").unwrap().is_constant());
        assert!(Template::parse("").unwrap().is_constant());
        assert!(!Template::parse("{{seq}}").unwrap().is_constant());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, at) in [
            ("ab{{seq", 2),
            ("{{sequ}}", 0),
            ("{{seq}}{{rand 0}}", 7),
            ("{{}}", 0),
            ("{{rand}}", 0),
        ] {
            assert_eq!(Template::parse(text).unwrap_err().0, at, "{text}");
        }
    }
}
