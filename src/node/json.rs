//! Pure. Writes JSON strings from bytes.

/// Appends `bytes` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD; text passes unchanged
/// but for `"`, `\` and control characters (no HTML escapes: nothing here is ever served as HTML).
pub(crate) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_ascii() {
        return put_text(out, bytes);
    }
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        put_escaped(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

/// [`put_string`] for bytes known to be UTF-8.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    put_escaped(out, text);
    out.push(b'"');
}

/// Where the first byte is that must be escaped. Whole chunks are judged without a branch per byte, which the
/// compiler turns into vector instructions: a scan spells kilobytes, and nearly none of them needs an escape.
fn position_of_escape(text: &[u8]) -> Option<usize> {
    let (chunks, _) = text.as_chunks::<32>();
    let clean = chunks.iter().take_while(|chunk| !any_escape::<32>(chunk));
    let at = clean.count() * 32;
    let rest = &text[at..];
    if rest.len() < 32 && !any_escape_in_tail(rest) {
        return None;
    }
    let rest = rest.iter().position(|&byte| is_escaped(byte))?;
    Some(at + rest)
}

fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn any_escape<const N: usize>(chunk: &[u8; N]) -> bool {
    chunk
        .iter()
        .fold(false, |any, &byte| any | is_escaped(byte))
}

/// By words, the last of which reaches back over the one before it.
fn any_escape_in_tail(tail: &[u8]) -> bool {
    match tail.last_chunk::<8>() {
        Some(last) => any_escape(last) || tail.as_chunks::<8>().0.iter().any(any_escape),
        None => tail.iter().any(|&byte| is_escaped(byte)),
    }
}

fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = position_of_escape(rest) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(control >> 4)]);
                out.push(HEX[usize::from(control & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        put_string(&mut out, bytes);
        String::from_utf8(out).expect("always UTF-8")
    }

    #[test]
    fn escapes_what_json_demands_and_nothing_else() {
        assert_eq!(string(b""), r#""""#);
        assert_eq!(string(b"a\"b\\c/<>&"), r#""a\"b\\c/<>&""#);
        assert_eq!(
            string(b"\n\r\t\x08\x0c\x00\x1f\x7f"),
            "\"\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\""
        );
        assert_eq!(string("é\u{1f600}".as_bytes()), "\"é\u{1f600}\"");
        assert_eq!(string(b"a\xffb\xe2\x82"), "\"a\u{fffd}b\u{fffd}\"");
    }

    /// Chunks, words and what is left of both: each byte of each length is looked at.
    #[test]
    fn one_escape_is_found_wherever_it_stands() {
        for len in 0..100 {
            let clean = "x".repeat(len);
            assert_eq!(string(clean.as_bytes()), format!("\"{clean}\""));
            for at in 0..len {
                let mut text = clean.clone();
                text.replace_range(at..=at, "\n");
                let want = format!("\"{}\"", text.replace('\n', "\\n"));
                assert_eq!(string(text.as_bytes()), want, "{len} {at}");
            }
        }
    }

    #[test]
    fn any_bytes_read_back_as_their_lossy_text() {
        let seed = 7;
        let mut rng = fastrand::Rng::with_seed(seed);
        for round in 0..2000 {
            let bytes: Vec<u8> = (0..rng.usize(0..150)).map(|_| rng.u8(..)).collect();
            let back: String = serde_json::from_str(&string(&bytes))
                .unwrap_or_else(|error| panic!("seed {seed} round {round}: {error}: {bytes:?}"));
            assert_eq!(
                back,
                String::from_utf8_lossy(&bytes),
                "seed {seed} round {round}"
            );
        }
    }
}
