//! Pure. Header fields as plain pairs, for the one route that has fields of its own: the Upgrade of a peer.

use crate::base::limits::HEADER_FIELDS_MAX;

/// One field: its name as sent, its value without the blanks around it.
pub type Pair<'a> = (&'a str, &'a [u8]);

/// The head of an answer that came whole.
#[derive(Debug, PartialEq, Eq)]
pub struct AnswerHead<'a> {
    pub status: u16,
    pub fields: Vec<Pair<'a>>,
    /// Length of the head.
    pub bytes: usize,
}

impl AnswerHead<'_> {
    /// Length of the body behind it, as far as its head tells: none when it does not.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        let mut fields = self.fields.iter();
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
        let digits = length.and_then(|(_, value)| str::from_utf8(value).ok());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// The bytes are no head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer;

/// The pairs of a request's `fields`, which the parser has judged.
#[must_use]
pub fn pairs(fields: &[u8]) -> Vec<Pair<'_>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_FIELDS_MAX];
    match httparse::parse_headers(fields, &mut headers) {
        Ok(httparse::Status::Complete((_, headers))) => owned(headers),
        Ok(httparse::Status::Partial) | Err(_) => Vec::new(),
    }
}

/// The head at the front of `bytes`; `None` while it has not come whole.
pub fn answer_head(bytes: &[u8]) -> Result<Option<AnswerHead<'_>>, NoAnswer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADER_FIELDS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => Ok(Some(AnswerHead {
            status: answer.code.ok_or(NoAnswer)?,
            fields: owned(answer.headers),
            bytes,
        })),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(NoAnswer),
    }
}

fn owned<'a>(headers: &[httparse::Header<'a>]) -> Vec<Pair<'a>> {
    headers
        .iter()
        .map(|header| (header.name, header.value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_heads_are_read_and_cut_ones_are_waited_for() {
        assert_eq!(
            pairs(b"A: 1\r\nB-c:  x y \r\n\r\n"),
            [("A", &b"1"[..]), ("B-c", b"x y")]
        );
        assert_eq!(pairs(b"A: 1"), []);
        let bytes = b"HTTP/1.1 101 Switching Protocols\r\nA: 1\r\n\r\nrest";
        for cut in 0..bytes.len() - 4 {
            assert_eq!(answer_head(&bytes[..cut]), Ok(None), "{cut}");
        }
        let head = answer_head(bytes).expect("a head").expect("whole");
        assert_eq!((head.status, head.bytes), (101, bytes.len() - 4));
        assert_eq!(head.fields, [("A", &b"1"[..])]);
        for (length, bytes) in [("content-length: 70", 70), ("Content-Length: x", 0)] {
            let head = format!("HTTP/1.1 403 No\r\n{length}\r\n\r\n");
            let head = answer_head(head.as_bytes()).unwrap().unwrap();
            assert_eq!(head.body_bytes(), bytes);
        }
        assert_eq!(answer_head(b"SSH-2.0-x\r\n"), Err(NoAnswer));
    }
}
