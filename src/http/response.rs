//! Answers into a caller's buffer.
//!
//! ```text
//! HTTP/1.1 200 OK            status::Status
//! Content-Type: ...          Kind
//! Server, nosniff, Date      date::Date
//! Connection: ...            only when it is not what the version implies
//! Access-Control-...         only to pages of a listed origin
//! <extra lines>
//! Content-Length: 11         or Transfer-Encoding: chunked, or neither (1.0 stream, 204, 304)
//!
//! <body>                     not for HEAD
//! ```
//!
//! The status line says 1.1 to 1.0 clients as well (RFC 9110 2.5). No byte of a request reaches a header
//! unfiltered: control bytes in extra values become `?`.

use super::date::Date;
use super::request::{Method, Request};
use super::status::{Reject, Status};

/// The interim answer that lets a client send the body it holds back.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the request says about the form of its answer. Small, so that it can wait while the answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub keep_alive: bool,
    pub http10: bool,
    /// HEAD: every header as for GET, no body.
    pub head_only: bool,
    /// Fields for a page of another site that may read the answer, whole lines.
    pub cors: Option<&'static str>,
}

impl Frame {
    #[must_use]
    pub fn of(request: &Request<'_>) -> Frame {
        Frame {
            keep_alive: request.keep_alive,
            http10: request.http10,
            head_only: request.method == Method::Head,
            cors: None,
        }
    }

    /// The last answer of a connection whose request could not be read.
    pub const CLOSE: Frame = Frame {
        keep_alive: false,
        http10: false,
        head_only: false,
        cors: None,
    };

    /// Appends a whole answer. `extra`: further fields, names ours, values from anywhere.
    pub fn answer(
        self,
        out: &mut Vec<u8>,
        date: &Date,
        status: Status,
        kind: Kind,
        extra: &[(&str, &[u8])],
        body: &[u8],
    ) {
        out.reserve(256 + body.len());
        self.head(out, date, status, kind, extra);
        if !status.has_body() {
            out.extend_from_slice(b"\r\n");
            return;
        }
        out.extend_from_slice(b"Content-Length: ");
        put_decimal(out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        if !self.head_only {
            out.extend_from_slice(body);
        }
    }

    /// Appends an error as text with a line end.
    pub fn error(
        self,
        out: &mut Vec<u8>,
        date: &Date,
        status: Status,
        extra: &[(&str, &[u8])],
        text: &str,
    ) {
        let mut body = Vec::with_capacity(text.len() + 1);
        body.extend_from_slice(text.as_bytes());
        body.push(b'\n');
        self.answer(out, date, status, Kind::Text, extra, &body);
    }

    /// Starts an answer of unknown length. To 1.0 it ends with the connection: look at
    /// [`Stream::keep_alive`], not at the frame, once this has been called.
    #[must_use]
    pub fn start(
        mut self,
        out: &mut Vec<u8>,
        date: &Date,
        status: Status,
        kind: Kind,
        extra: &[(&str, &[u8])],
    ) -> Stream {
        let chunked = !self.http10;
        self.keep_alive &= chunked;
        self.head(out, date, status, kind, extra);
        if chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Stream {
            chunked,
            frame: self,
        }
    }

    fn head(
        self,
        out: &mut Vec<u8>,
        date: &Date,
        status: Status,
        kind: Kind,
        extra: &[(&str, &[u8])],
    ) {
        out.extend_from_slice(status.line().as_bytes());
        if status.has_body() {
            out.extend_from_slice(kind.line());
        }
        out.extend_from_slice(date.lines());
        match (self.http10, self.keep_alive) {
            (false, true) => {}
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (_, false) => out.extend_from_slice(b"Connection: close\r\n"),
        }
        if let Some(cors) = self.cors {
            out.extend_from_slice(cors.as_bytes());
        }
        for (name, value) in extra {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value.iter().map(|&byte| match byte {
                0x20..=0x7e => byte,
                _ => b'?',
            }));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// An answer being sent in pieces. Dropping it without [`Stream::end`] must cut the connection: the client
/// then knows that something is missing.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    chunked: bool,
    frame: Frame,
}

impl Stream {
    #[must_use]
    pub fn keep_alive(self) -> bool {
        self.frame.keep_alive
    }

    pub fn piece(self, out: &mut Vec<u8>, piece: &[u8]) {
        // An empty chunk would be the end.
        if self.frame.head_only || piece.is_empty() {
            return;
        }
        if self.chunked {
            put_hex(out, piece.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(piece);
        if self.chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    pub fn end(self, out: &mut Vec<u8>) {
        if self.chunked && !self.frame.head_only {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

impl Reject {
    /// The last answer on the connection.
    pub fn answer(self, out: &mut Vec<u8>, date: &Date) {
        Frame::CLOSE.error(out, date, self.status, &[], self.text);
    }
}

/// Media type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Bytes,
    Json,
    Ndjson,
    Html,
    /// Prometheus refuses a page whose type differs in one byte.
    Metrics,
    OpenMetrics,
}

impl Kind {
    fn line(self) -> &'static [u8] {
        match self {
            Kind::Text => b"Content-Type: text/plain; charset=utf-8\r\n",
            Kind::Bytes => b"Content-Type: application/octet-stream\r\n",
            Kind::Json => b"Content-Type: application/json\r\n",
            Kind::Ndjson => b"Content-Type: application/x-ndjson\r\n",
            Kind::Html => b"Content-Type: text/html; charset=utf-8\r\n",
            Kind::Metrics => b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
            Kind::OpenMetrics => {
                b"Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
            }
        }
    }
}

/// By hand: `write!` costs more than the whole rest of a small answer.
pub(crate) fn put_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (value % 10) as u8;
        start -= 1;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn put_hex(out: &mut Vec<u8>, value: u64) {
    let digits = (64 - (value | 1).leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(value >> (4 * place) & 15) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Frame = Frame {
        keep_alive: true,
        http10: false,
        head_only: false,
        cors: None,
    };
    const COMMON: &str = "Server: kvstore\r\nX-Content-Type-Options: nosniff\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n";

    fn text(fill: impl FnOnce(&mut Vec<u8>, &Date)) -> String {
        let mut out = Vec::new();
        fill(&mut out, &Date::new(0));
        String::from_utf8(out)
            .expect("ascii")
            .replace(COMMON, "<common>\r\n")
    }

    #[test]
    fn whole_answers() {
        let ok = |frame: Frame| {
            text(|out, date| frame.answer(out, date, Status::Ok, Kind::Text, &[], b"hi"))
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n<common>\r\n";
        assert_eq!(ok(KEEP), format!("{head}Content-Length: 2\r\n\r\nhi"));
        assert_eq!(
            ok(Frame {
                head_only: true,
                ..KEEP
            }),
            format!("{head}Content-Length: 2\r\n\r\n")
        );
        assert_eq!(
            ok(Frame {
                http10: true,
                ..KEEP
            }),
            format!("{head}Connection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
        );
        assert_eq!(
            ok(Frame::CLOSE),
            format!("{head}Connection: close\r\nContent-Length: 2\r\n\r\nhi")
        );
        let none = text(|out, date| {
            KEEP.answer(
                out,
                date,
                Status::NoContent,
                Kind::Text,
                &[("Allow", b"GET")],
                b"",
            )
        });
        assert_eq!(
            none,
            "HTTP/1.1 204 No Content\r\n<common>\r\nAllow: GET\r\n\r\n"
        );
        let reject = text(|out, date| Reject::bad("no").answer(out, date));
        assert!(
            reject.starts_with("HTTP/1.1 400 ")
                && reject.ends_with("Content-Length: 3\r\n\r\nno\n")
        );
    }

    #[test]
    fn extra_values_cannot_start_a_line() {
        let out = text(|out, date| {
            KEEP.answer(
                out,
                date,
                Status::Ok,
                Kind::Json,
                &[("X-Kv-Next", b"a\r\nSet-Cookie: b\xff")],
                b"",
            )
        });
        assert!(
            out.contains("\r\nX-Kv-Next: a??Set-Cookie: b?\r\n"),
            "{out}"
        );
    }

    #[test]
    fn streams() {
        let stream = |frame: Frame| {
            text(|out, date| {
                let stream = frame.start(out, date, Status::Ok, Kind::Json, &[]);
                stream.piece(out, b"");
                stream.piece(out, &[b'x'; 26]);
                stream.end(out);
            })
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n<common>\r\n";
        let body = "x".repeat(26);
        assert_eq!(
            stream(KEEP),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n1a\r\n{body}\r\n0\r\n\r\n")
        );
        assert_eq!(
            stream(Frame {
                http10: true,
                ..KEEP
            }),
            format!("{head}Connection: close\r\n\r\n{body}")
        );
        assert_eq!(
            stream(Frame {
                head_only: true,
                ..KEEP
            }),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n")
        );
    }

    #[test]
    fn numbers_are_spelled_as_format_would() {
        for value in [
            0,
            1,
            9,
            10,
            15,
            16,
            99,
            100,
            255,
            256,
            65_535,
            1 << 32,
            u64::MAX,
        ] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            put_decimal(&mut decimal, value);
            put_hex(&mut hex, value);
            assert_eq!(decimal, value.to_string().as_bytes());
            assert_eq!(hex, format!("{value:x}").as_bytes());
        }
    }
}
