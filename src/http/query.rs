//! Query parameters: find one by name and decode it. `+` is a space, `%XX` a byte, `;` an ordinary byte.
//!
//! Nothing is allocated unless the value is encoded. Only the parameter asked for is decoded.

use std::borrow::Cow;

/// `%` without two hex digits in the parameter asked for: 400 with this text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPercent;

impl BadPercent {
    pub const TEXT: &'static str = "bad percent-encoding";
}

/// Whether every `%` of the query is followed by two hex digits: a client that encodes wrongly is told so
/// whatever parameter it shows in.
pub fn check(query: Option<&[u8]>) -> Result<(), BadPercent> {
    let query = query.unwrap_or_default();
    memchr::memchr_iter(b'%', query)
        .all(|at| {
            let digits = query.get(at + 1..at + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        })
        .then_some(())
        .ok_or(BadPercent)
}

/// The value of the first parameter called `name`; empty when it has no `=`.
pub fn get<'a>(query: Option<&'a [u8]>, name: &str) -> Result<Option<Cow<'a, [u8]>>, BadPercent> {
    let Some(query) = query else { return Ok(None) };
    for pair in query.split(|&byte| byte == b'&') {
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (found, value) = match equals {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        // A name may be encoded too; one that does not decode cannot be ours.
        if found == name.as_bytes() || decode(found).is_ok_and(|found| *found == *name.as_bytes()) {
            return decode(value).map(Some);
        }
    }
    Ok(None)
}

fn decode(text: &[u8]) -> Result<Cow<'_, [u8]>, BadPercent> {
    let Some(first) = text.iter().position(|byte| matches!(byte, b'%' | b'+')) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = text[first..].iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|&hex| char::from(hex).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or(BadPercent)?;
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_str(query: &str, name: &str) -> Result<Option<Vec<u8>>, BadPercent> {
        get(Some(query.as_bytes()), name).map(|found| found.map(Cow::into_owned))
    }

    #[test]
    fn first_wins_and_only_it_is_decoded() {
        assert_eq!(get(None, "key"), Ok(None));
        assert_eq!(get_str("", "key"), Ok(None));
        assert_eq!(get_str("a=1&key=x&key=y", "key"), Ok(Some(b"x".to_vec())));
        assert_eq!(get_str("key", "key"), Ok(Some(vec![])));
        assert_eq!(get_str("key=", "key"), Ok(Some(vec![])));
        assert_eq!(get_str("keys=1", "key"), Ok(None));
        assert_eq!(get_str("KEY=1", "key"), Ok(None));
        assert_eq!(get_str("a=%zz&%zz=1&key=x", "key"), Ok(Some(b"x".to_vec())));
        assert_eq!(get_str("%6bey=x", "key"), Ok(Some(b"x".to_vec())));
    }

    #[test]
    fn bytes_decode() {
        let cases: [(&str, &[u8]); 7] = [
            ("a+b%2b%c3%A9", "a b+é".as_bytes()),
            ("%ff%00", b"\xff\x00"),
            ("a;b=c", b"a;b=c"),
            ("..%2F..", b"../.."),
            ("%C0%AF", b"\xc0\xaf"),
            ("?x/y", b"?x/y"),
            ("%250a", b"%0a"),
        ];
        for (text, want) in cases {
            assert_eq!(
                get_str(&format!("key={text}"), "key"),
                Ok(Some(want.to_vec())),
                "{text}"
            );
        }
        assert!(matches!(
            get(Some(b"key=plain"), "key"),
            Ok(Some(Cow::Borrowed(b"plain")))
        ));
    }

    #[test]
    fn broken_percents_are_errors() {
        for text in ["%", "%2", "%GG", "a%", "%%20", "%+1", "%2+"] {
            assert_eq!(
                get_str(&format!("key={text}"), "key"),
                Err(BadPercent),
                "{text}"
            );
        }
    }
}
