//! Pure. A line of text with its checksum: how the small files of a data directory are written.
//!
//! ```text
//! {"format":1,...}\n
//! crc32:1a2b3c4d\n          of the first line, its line break included
//! ```
//!
//! People can read it, and a flipped bit or a file cut short is noticed. The line is a JSON object with the number of its
//! format; what else it says is the caller's business.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Why such a file is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The bytes, or what the line says, make no sense.
    Damaged(String),
    /// A later program wrote it.
    Newer { format: u32, known: u32 },
}

/// What every format's line has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The file with this line, which has its own `format`.
///
/// # Panics
/// If it holds what JSON cannot.
#[must_use]
pub fn encode<T: Serialize>(line: &T) -> Vec<u8> {
    seal(&serde_json::to_string(line).expect("plain words and numbers are JSON"))
}

/// Reads a file of a format up to `known`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], known: u32) -> Result<T, Bad> {
    let line = unseal(bytes).map_err(Bad::damaged)?;
    // Before the rest, which a later format may name otherwise.
    let Format { format } = serde_json::from_str(line).map_err(Bad::damaged)?;
    if format > known {
        return Err(Bad::Newer { format, known });
    }
    serde_json::from_str(line).map_err(Bad::damaged)
}

impl Bad {
    pub fn damaged(why: impl fmt::Display) -> Bad {
        Bad::Damaged(why.to_string())
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bad::Damaged(why) => f.write_str(why),
            Bad::Newer { format, known } => write!(
                f,
                "written in format {format}, this program knows format {known}"
            ),
        }
    }
}

/// The file that says `line`, which holds no line break.
fn seal(line: &str) -> Vec<u8> {
    debug_assert!(!line.contains('\n'), "one line");
    let crc = crc32fast::hash(format!("{line}\n").as_bytes());
    format!("{line}\ncrc32:{crc:08x}\n").into_bytes()
}

/// The line of such a file; the error says what is wrong with the bytes.
fn unseal(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8")?;
    let (line, _) = text.split_once('\n').ok_or("cut short")?;
    if seal(line) != bytes {
        return Err("checksum does not match");
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = seal("{\"a\":1}");
        assert_eq!(unseal(&bytes), Ok("{\"a\":1}"));
        for at in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(unseal(&bad).is_err(), "bit {at}");
        }
        for len in 0..bytes.len() {
            assert!(unseal(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert!(unseal(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_later_format_is_told_from_damage_whatever_else_it_says() {
        #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
        struct Line {
            format: u32,
            name: String,
        }
        let line = Line {
            format: 2,
            name: "a".to_owned(),
        };
        assert_eq!(decode(&encode(&line), 2), Ok(line));
        let newer = seal("{\"format\":3,\"names\":[]}");
        let refused = decode::<Line>(&newer, 2).unwrap_err();
        assert_eq!(
            refused,
            Bad::Newer {
                format: 3,
                known: 2
            }
        );
        let text = "written in format 3, this program knows format 2";
        assert_eq!(refused.to_string(), text);
        for bytes in [
            seal("{}"),
            seal("{\"format\":2}"),
            seal("x"),
            newer[1..].to_vec(),
        ] {
            let refused = decode::<Line>(&bytes, 2).unwrap_err();
            assert!(matches!(refused, Bad::Damaged(_)), "{refused:?}");
        }
    }
}
