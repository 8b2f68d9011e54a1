//! Request line and header fields, judged strictly.
//!
//! The line is ours: one pass finds its parts and checks every byte. The fields go through httparse, which
//! already refuses folded lines, spaces around names, bare CR and control bytes; what it tolerates and we do
//! not is a bare LF, and that the parser has refused before the bytes come here.

use super::request::{Accept, FetchSite, Method, Request};
use super::status::{Reject, Status};
use crate::base::limits::{HEADER_FIELDS_MAX, TARGET_BYTES_MAX};

/// A request line longer than this is judged by its start: the longest target, and room for the method, the
/// version, two spaces and CRLF.
pub(crate) const LINE_BYTES_MAX: usize = TARGET_BYTES_MAX + 32;

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Exactly this many bytes; zero without any length field.
    Length(u64),
    Chunked,
}

impl Framing {
    /// Whether the body is known to be longer.
    pub(crate) fn is_longer_than(self, bytes: usize) -> bool {
        matches!(self, Framing::Length(length) if length > bytes as u64)
    }
}

/// A whole head. `request.body` is still empty.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) framing: Framing,
    pub(crate) expects_continue: bool,
}

/// A request line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    method: Method,
    path: &'a [u8],
    query: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    http10: bool,
}

/// Judges a request line, given without its CRLF.
pub(crate) fn parse_line(line: &[u8]) -> Result<Line<'_>, Reject> {
    const SHAPE: Reject = Reject::bad("bad request line; expected: METHOD SP target SP HTTP/1.1");
    let (rest, version) = line.split_last_chunk::<8>().ok_or(SHAPE)?;
    let rest = rest.strip_suffix(b" ").ok_or(SHAPE)?;
    let space = rest.iter().position(|&byte| byte == b' ').ok_or(SHAPE)?;
    let (method, target) = (&rest[..space], &rest[space + 1..]);
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(SHAPE);
    }
    let http10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match major {
                // A higher minor version speaks 1.1 to us (RFC 9110 2.5).
                b'1' => false,
                b'0' => return Err(SHAPE),
                _ => {
                    return Err(Reject::new(
                        Status::VersionNotSupported,
                        "this server speaks HTTP/1.1",
                    ));
                }
            }
        }
        _ => return Err(SHAPE),
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Reject::new(Status::UriTooLong, "request target too long"));
    }
    // The method first: CONNECT has a target of its own form.
    let method = parse_method(method)?;
    match parse_target(target)? {
        Target::Asterisk if method != Method::Options => {
            Err(Reject::bad("the target * is for OPTIONS only"))
        }
        Target::Asterisk => Ok(Line {
            method,
            path: b"*",
            query: None,
            authority: None,
            http10,
        }),
        Target::Path {
            path,
            query,
            authority,
        } => Ok(Line {
            method,
            path,
            query,
            authority,
            http10,
        }),
    }
}

/// Judges a request line of more than [`LINE_BYTES_MAX`] bytes by its first ones.
pub(crate) fn judge_overlong(start: &[u8]) -> Reject {
    let method = start.split(|&byte| byte == b' ').next().unwrap_or_default();
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Reject::bad("bad request line");
    }
    match parse_method(method) {
        Ok(_) => Reject::new(Status::UriTooLong, "request target too long"),
        Err(reject) => reject,
    }
}

fn parse_method(name: &[u8]) -> Result<Method, Reject> {
    Ok(match name {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"TRACE" => Method::Trace,
        _ => {
            return Err(Reject::new(
                Status::NotImplemented,
                "unknown method (methods are upper case)",
            ));
        }
    })
}

/// What a request line points at.
enum Target<'a> {
    Asterisk,
    Path {
        path: &'a [u8],
        query: Option<&'a [u8]>,
        authority: Option<&'a [u8]>,
    },
}

fn parse_target(target: &[u8]) -> Result<Target<'_>, Reject> {
    const FORM: Reject = Reject::bad("the request target must be a path or an http:// address");
    let mut question = None;
    let mut percent = false;
    for (at, &byte) in target.iter().enumerate() {
        match byte {
            b'?' if question.is_none() => question = Some(at),
            b'%' => percent = true,
            b'#' => return Err(Reject::bad("a request target has no fragment")),
            0x21..=0x7e => {}
            _ => {
                return Err(Reject::bad(
                    "raw space, control or non-ASCII byte in the request target; percent-encode it",
                ));
            }
        }
    }
    let (path, query) = match question {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    if percent && !percents_are_whole(path) {
        return Err(Reject::bad("bad percent-encoding in the path"));
    }
    match path.first() {
        Some(b'/') => Ok(Target::Path {
            path,
            query,
            authority: None,
        }),
        Some(b'*') if target == b"*" => Ok(Target::Asterisk),
        _ => {
            let (scheme, rest) = path.split_at_checked(7).ok_or(FORM)?;
            if !scheme.eq_ignore_ascii_case(b"http://") {
                return Err(FORM);
            }
            let slash = rest
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(rest.len());
            let (authority, path) = rest.split_at(slash);
            if authority.is_empty() || !is_host(authority) {
                return Err(Reject::bad("bad host in the request target"));
            }
            let path = if path.is_empty() { b"/" } else { path };
            Ok(Target::Path {
                path,
                query,
                authority: Some(authority),
            })
        }
    }
}

fn percents_are_whole(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'%')
        .skip(1)
        .all(|rest| matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Judges the fields, given from after the request line to the end of the blank line.
pub(crate) fn parse_fields<'a>(line: Line<'a>, fields: &'a [u8]) -> Result<Head<'a>, Reject> {
    // Real requests have a handful: clearing room for a hundred would cost more than parsing them.
    let mut few = [httparse::EMPTY_HEADER; 16];
    let mut many;
    let parsed = match httparse::parse_headers(fields, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            many = [httparse::EMPTY_HEADER; HEADER_FIELDS_MAX];
            httparse::parse_headers(fields, &mut many)
        }
        parsed => parsed,
    };
    match parsed {
        Ok(httparse::Status::Complete((len, headers))) if len == fields.len() => {
            let mut seen = Fields::default();
            for header in headers {
                seen.take(header.name.as_bytes(), header.value)?;
            }
            let mut head = seen.finish(line)?;
            head.request.fields = fields;
            Ok(head)
        }
        Ok(_) => Err(Reject::bad("bad header field")),
        Err(httparse::Error::TooManyHeaders) => Err(Reject::new(
            Status::FieldsTooLarge,
            "too many header fields",
        )),
        Err(_) => Err(Reject::bad("bad header field")),
    }
}

/// The fields we act on, while they are collected.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    content_type: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    origin: Option<&'a [u8]>,
    fetch_site: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    accept: Accept,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Reject> {
        // The length picks at most two candidates, so a field we do not know costs one or two compares.
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        let single = match name.len() {
            4 if is(b"host") => &mut self.host,
            6 if is(b"origin") => &mut self.origin,
            6 if is(b"accept") => {
                self.accept.add(value);
                return Ok(());
            }
            6 if is(b"expect") => {
                let known = value.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= known;
                self.expects_other |= !known;
                return Ok(());
            }
            10 if is(b"connection") => {
                for option in value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                return Ok(());
            }
            10 if is(b"x-kv-after") => &mut self.after,
            12 if is(b"content-type") => &mut self.content_type,
            13 if is(b"authorization") => &mut self.authorization,
            14 if is(b"content-length") => &mut self.content_length,
            14 if is(b"sec-fetch-site") => &mut self.fetch_site,
            17 if is(b"transfer-encoding") => &mut self.transfer_encoding,
            _ => return Ok(()),
        };
        match single.replace(value) {
            None => Ok(()),
            Some(_) => Err(Reject::bad("a header field that may come once came twice")),
        }
    }

    fn finish(self, line: Line<'a>) -> Result<Head<'a>, Reject> {
        match self.host {
            None if !line.http10 => return Err(Reject::bad("missing Host")),
            // An empty Host is for targets without an authority (RFC 9112 3.2).
            Some(b"") if line.authority.is_some() => return Err(Reject::bad("empty Host")),
            Some(host) if !host.is_empty() && !is_host(host) => {
                return Err(Reject::bad("bad Host"));
            }
            _ => {}
        }
        let framing = self.framing(line.http10)?;
        // HTTP/1.0 knows no Expect (RFC 9110 10.1.1: ignore it).
        if self.expects_other && !line.http10 {
            return Err(Reject::new(
                Status::ExpectationFailed,
                "the only expectation met is 100-continue",
            ));
        }
        Ok(Head {
            framing,
            expects_continue: self.expects_continue && !line.http10,
            request: Request {
                method: line.method,
                path: line.path,
                query: line.query,
                host: line.authority.or(self.host),
                http10: line.http10,
                keep_alive: !self.close && (!line.http10 || self.keep_alive),
                accept: self.accept,
                authorization: self.authorization,
                origin: self.origin,
                fetch_site: match self.fetch_site {
                    None => FetchSite::Absent,
                    Some(b"same-origin" | b"none") => FetchSite::Own,
                    Some(_) => FetchSite::Other,
                },
                after: self.after,
                fields: b"",
                body: b"",
            },
        })
    }

    /// RFC 9112 6.3 with every MAY taken on the strict side.
    fn framing(&self, http10: bool) -> Result<Framing, Reject> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(Framing::Length(0)),
            (None, Some(length)) => parse_length(length).map(Framing::Length),
            (Some(_), Some(_)) => Err(Reject::bad("both Content-Length and Transfer-Encoding")),
            (Some(_), None) if http10 => Err(Reject::bad("Transfer-Encoding in HTTP/1.0")),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(coding), None) => Err(judge_coding(coding)),
        }
    }
}

/// `1*DIGIT`; leading zeros are allowed by the grammar and change nothing.
fn parse_length(value: &[u8]) -> Result<u64, Reject> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reject::bad("bad Content-Length"));
    }
    value
        .iter()
        .try_fold(0u64, |length, digit| {
            length.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
        .ok_or(Reject::new(Status::ContentTooLarge, "body too large"))
}

/// Any coding but one lone `chunked`. Chunked before the end, or twice, leaves the length unknowable: 400.
fn judge_coding(value: &[u8]) -> Reject {
    let mut codings = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    codings.next_back();
    if value.is_empty() || codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return Reject::bad("bad Transfer-Encoding");
    }
    Reject::new(
        Status::NotImplemented,
        "the only transfer coding known is chunked",
    )
}

/// `name`, `1.2.3.4` or `[v6]`, and an optional `:port`. Stricter than the URI grammar, whose sub-delims
/// (`,` `;` `=` ...) no host we could be has.
fn is_host(value: &[u8]) -> bool {
    let port = match value.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&byte| byte == b']') else {
                return false;
            };
            let v6 = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            if end == 0 || !rest[..end].iter().all(v6) {
                return false;
            }
            &rest[end + 1..]
        }
        None => {
            let name = |byte: &u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
            };
            let end = value
                .iter()
                .position(|byte| !name(byte))
                .unwrap_or(value.len());
            if end == 0 {
                return false;
            }
            &value[end..]
        }
    };
    match port.strip_prefix(b":") {
        Some(digits) => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        None => port.is_empty(),
    }
}

/// `tchar` of RFC 9110 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
