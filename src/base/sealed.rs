//! Pure. A line of text with its checksum: how the small files of a data directory are written.
//!
//! ```text
//! {"format":1,...}\n
//! crc32:1a2b3c4d\n          of the first line, its line break included
//! ```
//!
//! People can read it, and a flipped bit or a file cut short is noticed. What the line says is the caller's business.

/// The file that says `line`, which holds no line break.
#[must_use]
pub fn seal(line: &str) -> Vec<u8> {
    debug_assert!(!line.contains('\n'), "one line");
    let crc = crc32fast::hash(format!("{line}\n").as_bytes());
    format!("{line}\ncrc32:{crc:08x}\n").into_bytes()
}

/// The line of such a file; the error says what is wrong with the bytes.
pub fn unseal(bytes: &[u8]) -> Result<&str, &'static str> {
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
}
