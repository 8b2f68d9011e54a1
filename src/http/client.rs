//! The mirror image: requests out, answers in. For tests, the simulator and the load generator.
//!
//! As lean as the server's parser: an answer that lies wholly in the input is borrowed from it. Stricter than
//! a browser, for it speaks with our own server only: what is not as we would write it is an error.

use super::chunked::Chunked;
use super::request::Method;
use super::response::put_decimal;
use crate::base::limits::HEAD_BYTES_MAX;

/// Appends one request. `target` must be encoded already; `fields` are further header fields. A body is sent
/// with its length; `None` sends no length, as curl does for a POST without data.
pub fn request(
    out: &mut Vec<u8>,
    method: Method,
    target: &str,
    host: &str,
    fields: &[(&str, &str)],
    body: Option<&[u8]>,
) {
    for part in [
        method.name(),
        " ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if let Some(body) = body {
        out.extend_from_slice(b"Content-Length: ");
        put_decimal(out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.unwrap_or_default());
}

/// Appends `text` so that the server's query decoder gives it back.
pub fn put_query_value(out: &mut String, text: &[u8]) {
    for &byte in text {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' => {
                out.push(char::from(byte));
            }
            _ => {
                let digit = |bits: u8| char::from(b"0123456789ABCDEF"[usize::from(bits)]);
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// The answers of one connection.
#[derive(Debug)]
pub struct Answers {
    body_bytes_max: usize,
    /// How far an unfinished head has been searched.
    searched: usize,
    pending: Option<Pending>,
}

/// What the input holds next; `consumed` bytes of it are done with.
#[derive(Debug)]
pub enum Got<'a> {
    NeedMore {
        consumed: usize,
    },
    /// 100 Continue: the body may be sent.
    Interim {
        consumed: usize,
    },
    Answer {
        answer: Answer<'a>,
        consumed: usize,
    },
    /// Not an answer of our server; close the connection.
    Bad {
        text: &'static str,
    },
}

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    pub status: u16,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    pub body: &'a [u8],
    fields: &'a [u8],
}

#[derive(Debug)]
struct Pending {
    head: Vec<u8>,
    body: Vec<u8>,
    rest: Rest,
    done: bool,
}

#[derive(Debug)]
enum Rest {
    Length(usize),
    Chunked(Chunked),
    UntilClose,
}

impl<'a> Answer<'a> {
    /// The first field of this name, in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.split(|&byte| byte == b'\n').find_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            line[..colon]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| line[colon + 1..].trim_ascii())
        })
    }

    /// The header fields as they came, with the blank line.
    #[must_use]
    pub fn fields(&self) -> &'a [u8] {
        self.fields
    }

    /// Parses a whole head.
    fn parse(head: &'a [u8]) -> Result<Answer<'a>, &'static str> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Response::new(&mut headers);
        let whole = parsed.parse(head).is_ok_and(|status| status.is_complete());
        let (Some(status), Some(version), true) = (parsed.code, parsed.version, whole) else {
            return Err("bad head of an answer");
        };
        let line_bytes = memchr::memchr(b'\n', head).map_or(head.len(), |at| at + 1);
        let mut answer = Answer {
            status,
            keep_alive: true,
            body: b"",
            fields: &head[line_bytes..],
        };
        answer.keep_alive = match answer.field("connection") {
            Some(options) => {
                let is = |name: &str| {
                    let mut options = options.split(|&byte| byte == b',');
                    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
                };
                !is("close") && (version == 1 || is("keep-alive"))
            }
            None => version == 1,
        };
        Ok(answer)
    }

    /// RFC 9112 6.3 for answers; `to` is the method of the request.
    fn rest(&self, to: Method, body_bytes_max: usize) -> Result<Rest, &'static str> {
        if to == Method::Head || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Rest::Length(0));
        }
        match (
            self.field("transfer-encoding"),
            self.field("content-length"),
        ) {
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Rest::Chunked(Chunked::new()))
            }
            (Some(_), _) => Err("bad Transfer-Encoding of an answer"),
            (None, None) => Ok(Rest::UntilClose),
            (None, Some(length)) => std::str::from_utf8(length)
                .ok()
                .and_then(|length| length.parse::<usize>().ok())
                .filter(|&length| length <= body_bytes_max)
                .map(Rest::Length)
                .ok_or("bad or too large Content-Length of an answer"),
        }
    }
}

impl Answers {
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Answers {
        Answers {
            body_bytes_max,
            searched: 0,
            pending: None,
        }
    }

    /// Takes the next answer off `input`; `to` is the method of the oldest unanswered request.
    pub fn next<'a>(&'a mut self, input: &'a [u8], to: Method) -> Got<'a> {
        if self.pending.as_ref().is_some_and(|pending| pending.done) {
            self.pending = None;
        }
        if self.pending.is_some() {
            return self.next_pending(0, input);
        }
        let from = self.searched.saturating_sub(3).min(input.len());
        let Some(found) = memchr::memmem::find(&input[from..], b"\r\n\r\n") else {
            if input.len() > HEAD_BYTES_MAX {
                return Got::Bad {
                    text: "head of an answer too large",
                };
            }
            self.searched = input.len();
            return Got::NeedMore { consumed: 0 };
        };
        self.searched = 0;
        let (head, after) = input.split_at(from + found + 4);
        let judged = Answer::parse(head)
            .and_then(|answer| Ok((answer, answer.rest(to, self.body_bytes_max)?)));
        match judged {
            Err(text) => Got::Bad { text },
            Ok((answer, _)) if answer.status < 200 => Got::Interim {
                consumed: head.len(),
            },
            Ok((answer, Rest::Length(length))) if length <= after.len() => Got::Answer {
                answer: Answer {
                    body: &after[..length],
                    ..answer
                },
                consumed: head.len() + length,
            },
            Ok((_, rest)) => {
                self.pending = Some(Pending {
                    head: head.to_vec(),
                    body: Vec::new(),
                    rest,
                    done: false,
                });
                self.next_pending(head.len(), after)
            }
        }
    }

    /// The server has closed: the answer that ends with the connection, if one was under way.
    pub fn closed(&mut self) -> Option<Answer<'_>> {
        let pending = self
            .pending
            .as_mut()
            .filter(|pending| matches!(pending.rest, Rest::UntilClose))?;
        pending.done = true;
        Answer::parse(&pending.head).ok().map(|answer| Answer {
            keep_alive: false,
            body: &pending.body,
            ..answer
        })
    }

    fn next_pending<'a>(&'a mut self, before: usize, input: &[u8]) -> Got<'a> {
        let body_bytes_max = self.body_bytes_max;
        let Some(pending) = &mut self.pending else {
            return Got::NeedMore { consumed: before };
        };
        let consumed = match pending.feed(input, body_bytes_max) {
            Ok(used) => before + used,
            Err(text) => return Got::Bad { text },
        };
        if !pending.done {
            return Got::NeedMore { consumed };
        }
        match Answer::parse(&pending.head) {
            Ok(answer) => Got::Answer {
                answer: Answer {
                    body: &pending.body,
                    ..answer
                },
                consumed,
            },
            Err(text) => Got::Bad { text },
        }
    }
}

impl Pending {
    fn feed(&mut self, input: &[u8], body_bytes_max: usize) -> Result<usize, &'static str> {
        match &mut self.rest {
            Rest::Length(left) => {
                let used = input.len().min(*left);
                self.body.extend_from_slice(&input[..used]);
                *left -= used;
                self.done = *left == 0;
                Ok(used)
            }
            Rest::Chunked(decoder) => {
                let taken = decoder
                    .decode(input, &mut self.body, body_bytes_max)
                    .map_err(|reject| reject.text)?;
                self.done = taken.done;
                Ok(taken.consumed)
            }
            Rest::UntilClose if self.body.len() + input.len() > body_bytes_max => {
                Err("body of an answer too large")
            }
            Rest::UntilClose => {
                self.body.extend_from_slice(input);
                Ok(input.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::date::Date;
    use crate::http::parser::{Next, Parser};
    use crate::http::query;
    use crate::http::response::{CONTINUE, Frame, Kind};
    use crate::http::status::Status;

    const KEEP: Frame = Frame {
        keep_alive: true,
        http10: false,
        head_only: false,
        cors: None,
    };

    /// Everything the client makes of these bytes cut into pieces of `step`; `|` marks the end of input.
    fn replay(bytes: &[u8], step: usize, to: &[Method]) -> String {
        let mut answers = Answers::new(1000);
        let mut to = to.iter();
        let mut expected = to.next();
        let (mut out, mut kept) = (String::new(), Vec::new());
        for piece in bytes.chunks(step) {
            kept.extend_from_slice(piece);
            let mut at = 0;
            while let Some(&method) = expected {
                match answers.next(&kept[at..], method) {
                    Got::NeedMore { consumed } => {
                        at += consumed;
                        break;
                    }
                    Got::Interim { consumed } => {
                        at += consumed;
                        out.push_str("interim ");
                    }
                    Got::Answer { answer, consumed } => {
                        at += consumed;
                        out.push_str(&shown(&answer));
                        expected = to.next();
                    }
                    Got::Bad { text } => return format!("{out}{text}"),
                }
            }
            kept.drain(..at);
        }
        out.push('|');
        if let Some(answer) = answers.closed() {
            out.push_str(&shown(&answer));
        }
        out
    }

    fn shown(answer: &Answer<'_>) -> String {
        let close = if answer.keep_alive { "" } else { " close" };
        format!("{} {}{close}; ", answer.status, answer.body.escape_ascii())
    }

    #[test]
    fn our_own_answers_are_read_back() {
        let mut out = CONTINUE.to_vec();
        let date = Date::new(0);
        KEEP.answer(
            &mut out,
            &date,
            Status::Ok,
            Kind::Text,
            &[("X-Kv-Next", b"a")],
            b"hello",
        );
        Frame {
            head_only: true,
            ..KEEP
        }
        .answer(&mut out, &date, Status::Ok, Kind::Text, &[], b"gone");
        KEEP.answer(&mut out, &date, Status::NoContent, Kind::Text, &[], b"");
        let stream = KEEP.start(&mut out, &date, Status::Ok, Kind::Json, &[]);
        stream.piece(&mut out, b"{\"a\":");
        stream.piece(&mut out, b"1}");
        stream.end(&mut out);
        let stream = Frame {
            http10: true,
            ..KEEP
        }
        .start(&mut out, &date, Status::Ok, Kind::Json, &[]);
        stream.piece(&mut out, b"to the end");
        let to = [
            Method::Get,
            Method::Head,
            Method::Options,
            Method::Get,
            Method::Get,
        ];
        for step in [1, 2, 3, 7, 100, out.len()] {
            assert_eq!(
                replay(&out, step, &to),
                "interim 200 hello; 200 ; 204 ; 200 {\\\"a\\\":1}; |200 to the end close; ",
                "by {step}"
            );
        }
        let mut answers = Answers::new(100);
        let Got::Answer { answer, .. } = answers.next(&out[CONTINUE.len()..], Method::Get) else {
            panic!("whole")
        };
        assert_eq!(answer.field("x-kv-NEXT"), Some(&b"a"[..]));
        assert_eq!(answer.field("X-Kv"), None);
    }

    #[test]
    fn nonsense_is_bad() {
        for (bytes, text) in [
            ("HTTP/1.1 2000 OK\r\n\r\n", "bad head of an answer"),
            ("ICY 200 OK\r\n\r\n", "bad head of an answer"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
                "bad or too large Content-Length of an answer",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                "bad Transfer-Encoding of an answer",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                "bad chunk size",
            ),
        ] {
            for step in [1, bytes.len()] {
                assert_eq!(
                    replay(bytes.as_bytes(), step, &[Method::Get]),
                    text,
                    "{bytes:?}"
                );
            }
        }
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
        assert_eq!(
            replay(cut.as_bytes(), 4, &[Method::Get]),
            "|",
            "a cut answer is no answer"
        );
    }

    #[test]
    fn our_parser_reads_our_requests() {
        let mut target = "/get?key=".to_owned();
        let key: Vec<u8> = (0..=255).collect();
        put_query_value(&mut target, &key);
        let mut out = Vec::new();
        request(
            &mut out,
            Method::Post,
            &target,
            "h:1",
            &[("Accept", "application/json")],
            Some(b"hi"),
        );
        request(&mut out, Method::Delete, "/", "h:1", &[], None);
        let mut parser = Parser::default();
        let Next::Request { request, consumed } = parser.next(&out, &|_| Some(2)) else {
            panic!("whole")
        };
        assert_eq!(
            query::get(request.query, "key")
                .expect("encoded")
                .as_deref(),
            Some(key.as_slice())
        );
        assert_eq!(
            (request.method, request.body, request.accept.json),
            (Method::Post, &b"hi"[..], true)
        );
        let next = parser.next(&out[consumed..], &|_| Some(0));
        assert!(matches!(next, Next::Request { request, .. } if request.method == Method::Delete));
    }
}
