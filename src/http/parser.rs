//! Push parser: bytes of one connection in, requests out.
//!
//! ```text
//! input  | head of A | body of A | head of B | hea        next() -> Request A, Request B, NeedMore
//!                                            ^ kept by the caller until more has come
//! ```
//!
//! A request that lies wholly in the input costs no copy and no allocation: everything in [`Request`] borrows.
//! Only when a body is cut by the network, or chunked, does the parser keep bytes itself.
//!
//! One byte at a time costs no more than all at once: the search for the blank line goes on where it stopped,
//! and the fields are parsed once, when the head is whole. What is judged depends on the bytes before it only,
//! so the same bytes get the same answer however they were cut.
//!
//! One per connection, owned by its core.

use super::chunked::Chunked;
use super::head::{
    Framing, Head, LINE_BYTES_MAX, Line, is_token, judge_overlong, parse_fields, parse_line,
};
use super::request::Request;
use super::status::{Reject, Status};
use crate::base::limits::HEAD_BYTES_MAX;

/// Longest body allowed behind this head; `None`: the head alone is reason to refuse. Asked once per request with
/// a body, before any byte of it is taken; the request it sees has none yet.
pub type JudgeHead<'f> = &'f dyn Fn(&Request<'_>) -> Option<usize>;

/// A body behind a refused head is taken in and dropped up to this length, so that the connection goes on.
pub const UNWANTED_BODY_BYTES_MAX: usize = 64 << 10;

/// Parser of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    /// How far the unfinished head has been searched, from the start of the next input.
    searched: usize,
    /// Start of the line being searched.
    line_start: usize,
    /// The one CRLF allowed before a request line (RFC 9112 2.2) has been taken.
    blank_taken: bool,
    /// The client has said that no request follows (RFC 9112 9.6): what follows is dropped unread.
    closed: bool,
    pending: Option<Box<Pending>>,
    rejected: Option<Reject>,
}

/// What the input holds next. `consumed` bytes of it are done with: do not offer them again.
#[derive(Debug)]
pub enum Next<'a> {
    /// Offer the rest of the input again with more behind it.
    NeedMore { consumed: usize },
    /// Send [`CONTINUE`](super::response::CONTINUE) now: the client holds its body back. Said once.
    Continue { consumed: usize },
    /// After one without `keep_alive` there is no other. One that is refused for its head, and whose body is long
    /// or held back, is given out without it, as the last of its connection: nobody need send it.
    Request {
        request: Request<'a>,
        consumed: usize,
    },
    /// Answer and close. Every further call says the same and looks at nothing.
    Reject { reject: Reject },
}

/// Which deadline the connection is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun.
    Head,
    /// A head is whole, its body is not.
    Body,
}

/// A request whose body did not come with its head.
#[derive(Debug)]
struct Pending {
    head: Vec<u8>,
    body: Vec<u8>,
    limit: usize,
    rest: Rest,
    done: bool,
}

/// What of a body is still to come.
#[derive(Debug)]
enum Rest {
    Length(usize),
    Chunked(Chunked),
}

/// A head found whole in the input.
struct Found<'a> {
    line: Line<'a>,
    line_bytes: usize,
    head_bytes: usize,
}

impl Parser {
    /// Takes the next request off `input`: the bytes not consumed so far, new ones behind them. Call until it
    /// says `NeedMore` or `Reject`; a request's slices live until the next call.
    pub fn next<'a>(&'a mut self, input: &'a [u8], judge: JudgeHead<'_>) -> Next<'a> {
        if let Some(reject) = self.rejected {
            return Next::Reject { reject };
        }
        if self.pending.as_ref().is_some_and(|pending| pending.done) {
            self.pending = None;
        }
        if self.pending.is_some() {
            return self.next_pending(0, input);
        }
        if self.closed {
            return Next::NeedMore {
                consumed: input.len(),
            };
        }
        let blank_bytes = match self.take_blank(input) {
            Ok(Some(blank_bytes)) => blank_bytes,
            Ok(None) => return Next::NeedMore { consumed: 0 },
            Err(reject) => return self.reject(reject),
        };
        let input = &input[blank_bytes..];
        let found = match self.search(input) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Next::NeedMore {
                    consumed: blank_bytes,
                };
            }
            Err(reject) => return self.reject(reject),
        };
        (self.searched, self.line_start, self.blank_taken) = (0, 0, false);
        let (head_bytes, after) = input.split_at(found.head_bytes);
        match parse_fields(found.line, &head_bytes[found.line_bytes..]) {
            Ok(head) => self.go_on(head, blank_bytes, head_bytes, after, judge),
            Err(reject) => self.reject(reject),
        }
    }

    /// Behind a good head: takes the body, asks for it, or decides to do without.
    fn go_on<'a>(
        &'a mut self,
        mut head: Head<'a>,
        blank_bytes: usize,
        head_bytes: &'a [u8],
        after: &'a [u8],
        judge: JudgeHead<'_>,
    ) -> Next<'a> {
        self.closed = !head.request.keep_alive;
        let limit = match head.framing {
            Framing::Length(0) => Some(0),
            _ => judge(&head.request),
        };
        let consumed = blank_bytes + head_bytes.len();
        let hold = head.expects_continue && after.is_empty();
        match (head.framing, limit) {
            (Framing::Length(length), Some(limit)) if length > limit as u64 => {
                self.reject(Reject::new(Status::ContentTooLarge, "body too large"))
            }
            (Framing::Length(length), _) if length <= after.len() as u64 => {
                let length = length as usize;
                head.request.body = &after[..length];
                Next::Request {
                    request: head.request,
                    consumed: consumed + length,
                }
            }
            (framing, None) if hold || framing.is_longer_than(UNWANTED_BODY_BYTES_MAX) => {
                self.closed = true;
                head.request.keep_alive = false;
                Next::Request {
                    request: head.request,
                    consumed,
                }
            }
            (_, limit) => {
                let limit = limit.unwrap_or(UNWANTED_BODY_BYTES_MAX);
                self.pending = Some(Pending::new(head.framing, head_bytes, limit));
                if hold {
                    return Next::Continue { consumed };
                }
                self.next_pending(consumed, after)
            }
        }
    }

    /// What the connection is waiting for.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.pending {
            Some(pending) if !pending.done => Phase::Body,
            _ if self.searched > 0 => Phase::Head,
            _ => Phase::Idle,
        }
    }

    /// Body bytes received so far of the request being received: a body must grow to be called alive.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.pending
            .as_ref()
            .map_or(0, |pending| pending.body.len())
    }

    /// Heap bytes held; zero between requests that came whole.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            size_of::<Pending>() + pending.head.capacity() + pending.body.capacity()
        })
    }

    fn reject<'a>(&mut self, reject: Reject) -> Next<'a> {
        self.rejected = Some(reject);
        self.pending = None;
        Next::Reject { reject }
    }

    /// Length of the CRLF to skip before the request line; `None` while that cannot be told.
    fn take_blank(&mut self, input: &[u8]) -> Result<Option<usize>, Reject> {
        if self.searched > 0 {
            return Ok(Some(0));
        }
        match input {
            [b'\r', b'\n', rest @ ..] if !self.blank_taken => {
                self.blank_taken = true;
                judge_first(rest)?;
                Ok(Some(2))
            }
            [b'\r'] if !self.blank_taken => Ok(None),
            input => judge_first(input).map(|()| Some(0)),
        }
    }

    /// Looks for the end of the head, judging each line end as it comes.
    fn search<'a>(&mut self, input: &'a [u8]) -> Result<Option<Found<'a>>, Reject> {
        let mut line = None;
        while let Some(found) =
            memchr::memchr(b'\n', input.get(self.searched..).unwrap_or_default())
        {
            let line_feed = self.searched + found;
            let end = line_feed + 1;
            if self.line_start == 0 && end > LINE_BYTES_MAX {
                return Err(judge_overlong(&input[..LINE_BYTES_MAX]));
            }
            if end > HEAD_BYTES_MAX {
                break;
            }
            judge_blank(&input[self.line_start..end], self.line_start)?;
            let Some(text) = input[self.line_start..line_feed].strip_suffix(b"\r") else {
                return Err(Reject::bad("a line must end with CRLF"));
            };
            if self.line_start == 0 {
                line = Some((parse_line(text)?, end));
            } else if text.is_empty() {
                let (line, line_bytes) = match line {
                    Some(line) => line,
                    None => reparse_line(input)?,
                };
                return Ok(Some(Found {
                    line,
                    line_bytes,
                    head_bytes: end,
                }));
            }
            self.line_start = end;
            self.searched = end;
        }
        if self.line_start == 0 && input.len() >= LINE_BYTES_MAX {
            return Err(judge_overlong(&input[..LINE_BYTES_MAX]));
        }
        if input.len() >= HEAD_BYTES_MAX {
            return Err(Reject::new(
                Status::FieldsTooLarge,
                "request head too large",
            ));
        }
        judge_blank(&input[self.line_start..], self.line_start)?;
        self.searched = input.len();
        Ok(None)
    }

    /// Feeds the pending body; `input` lies `before` bytes into what the caller offered.
    fn next_pending<'a>(&'a mut self, before: usize, input: &[u8]) -> Next<'a> {
        let Some(pending) = &mut self.pending else {
            return Next::NeedMore { consumed: before };
        };
        match pending.feed(input) {
            Err(reject) => self.reject(reject),
            Ok(used) if !pending.done => Next::NeedMore {
                consumed: before + used,
            },
            Ok(used) => match self.pending.as_ref().map(|pending| pending.request()) {
                Some(Ok(request)) => Next::Request {
                    request,
                    consumed: before + used,
                },
                Some(Err(reject)) => Next::Reject { reject },
                None => Next::NeedMore {
                    consumed: before + used,
                },
            },
        }
    }
}

impl Pending {
    fn new(framing: Framing, head: &[u8], limit: usize) -> Box<Pending> {
        Box::new(Pending {
            head: head.to_vec(),
            body: Vec::new(),
            limit,
            rest: match framing {
                // Checked against the limit, a usize.
                Framing::Length(length) => Rest::Length(length as usize),
                Framing::Chunked => Rest::Chunked(Chunked::new()),
            },
            done: false,
        })
    }

    /// Takes what belongs to the body; returns how much that was.
    fn feed(&mut self, input: &[u8]) -> Result<usize, Reject> {
        match &mut self.rest {
            Rest::Length(left) => {
                let used = input.len().min(*left);
                let whole = self.body.len() + *left;
                grow(&mut self.body, used, whole);
                self.body.extend_from_slice(&input[..used]);
                *left -= used;
                self.done = *left == 0;
                Ok(used)
            }
            Rest::Chunked(decoder) => {
                let taken = decoder.decode(input, &mut self.body, self.limit)?;
                self.done = taken.done;
                Ok(taken.consumed)
            }
        }
    }

    /// The finished request. The head is parsed again: it was judged good, and positions kept from then
    /// would be a second copy of the truth.
    fn request(&self) -> Result<Request<'_>, Reject> {
        let (line, line_bytes) = reparse_line(&self.head)?;
        let head = parse_fields(line, &self.head[line_bytes..])?;
        Ok(Request {
            body: &self.body,
            ..head.request
        })
    }
}

/// Doubles like `Vec`, from what has arrived and never from what was claimed, but not past the whole body.
fn grow(body: &mut Vec<u8>, more: usize, whole: usize) {
    let needed = body.len() + more;
    if needed > body.capacity() {
        let capacity = needed.max(body.capacity() * 2).min(whole);
        body.reserve_exact(capacity - body.len());
    }
}

/// The line of a head whose line was judged in an earlier call.
fn reparse_line(head: &[u8]) -> Result<(Line<'_>, usize), Reject> {
    let end = memchr::memchr(b'\n', head).unwrap_or_default();
    let text = head[..end].strip_suffix(b"\r").unwrap_or_default();
    Ok((parse_line(text)?, end + 1))
}

/// A CR at the start of a field line ends the head or is nonsense. The latter is refused at once: a client that
/// takes it for the end of its head would wait for an answer until the head deadline.
fn judge_blank(line: &[u8], line_start: usize) -> Result<(), Reject> {
    match line {
        [b'\r', next, ..] if line_start > 0 && *next != b'\n' => {
            Err(Reject::bad("bad header field"))
        }
        _ => Ok(()),
    }
}

/// A request begins with a token: what does not (TLS, blank lines, binary) is refused at its first byte
/// instead of at the head deadline.
fn judge_first(input: &[u8]) -> Result<(), Reject> {
    match input.first() {
        Some(&byte) if !is_token(byte) => Err(Reject::bad("this is not an HTTP request")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(_: &Request<'_>) -> Option<usize> {
        Some(100)
    }

    #[test]
    fn a_whole_request_is_borrowed_and_idle_is_small() {
        let mut parser = Parser::default();
        let input = b"GET /get?key=a HTTP/1.1\r\nHost: h\r\n\r\nGET";
        let Next::Request { request, consumed } = parser.next(input, &limit) else {
            panic!("whole")
        };
        assert_eq!(
            (request.path, request.query, consumed),
            (&b"/get"[..], Some(&b"key=a"[..]), 36)
        );
        assert!(std::ptr::eq(request.path.as_ptr(), &raw const input[4]));
        assert_eq!(parser.phase(), Phase::Idle);
        assert!(matches!(
            parser.next(&input[36..], &limit),
            Next::NeedMore { consumed: 0 }
        ));
        assert_eq!((parser.phase(), parser.memory_bytes()), (Phase::Head, 0));
        assert!(size_of::<Parser>() <= 72);
    }

    #[test]
    fn a_claimed_length_reserves_nothing() {
        let mut parser = Parser::default();
        let input = b"POST /put HTTP/1.1\r\nHost: h\r\nContent-Length: 60000000\r\n\r\nx";
        let next = parser.next(input, &|_| Some(64 << 20));
        assert!(matches!(next, Next::NeedMore { consumed } if consumed == input.len()));
        assert_eq!((parser.phase(), parser.body_bytes()), (Phase::Body, 1));
        assert!(parser.memory_bytes() < 1000);
    }

    #[test]
    fn a_head_that_is_refused_is_given_out_without_its_body() {
        let head =
            b"POST /nope HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
        let mut parser = Parser::default();
        let next = parser.next(head, &|_| None);
        let Next::Request { request, consumed } = next else {
            panic!("{next:?}")
        };
        assert_eq!(
            (request.body, request.keep_alive, consumed),
            (&b""[..], false, head.len())
        );
        let rest = b"helloGET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert!(
            matches!(parser.next(rest, &limit), Next::NeedMore { consumed } if consumed == rest.len()),
            "what follows is dropped unread"
        );
        let whole = [&head[..], b"hello"].concat();
        let mut parser = Parser::default();
        let next = parser.next(&whole, &|_| None);
        let Next::Request { request, .. } = next else {
            panic!("{next:?}")
        };
        assert!(
            request.keep_alive && request.body == b"hello",
            "the body is here: the connection goes on"
        );
    }

    #[test]
    fn a_head_that_ends_in_one_cr_too_many_is_refused_at_once() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\r\n";
        let mut parser = Parser::default();
        let next = parser.next(head, &limit);
        assert!(matches!(next, Next::Reject { .. }), "{next:?}");
    }

    #[test]
    fn continue_is_said_once_and_only_when_the_body_is_held_back() {
        let head =
            b"POST /put HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
        let mut parser = Parser::default();
        assert!(
            matches!(parser.next(head, &limit), Next::Continue { consumed } if consumed == head.len())
        );
        assert!(matches!(
            parser.next(b"", &limit),
            Next::NeedMore { consumed: 0 }
        ));
        assert!(matches!(
            parser.next(b"h", &limit),
            Next::NeedMore { consumed: 1 }
        ));
        let next = parser.next(b"iG", &limit);
        assert!(matches!(next, Next::Request { request, consumed: 1 } if request.body == b"hi"));
        let with_body = [head.as_slice(), b"h"].concat();
        let mut parser = Parser::default();
        assert!(
            matches!(parser.next(&with_body, &limit), Next::NeedMore { consumed } if consumed == with_body.len())
        );
        let mut parser = Parser::default();
        let next = parser.next(head, &|_| Some(1));
        assert!(
            matches!(next, Next::Reject { reject } if reject.status == Status::ContentTooLarge)
        );
        assert!(matches!(
            parser.next(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &limit),
            Next::Reject { .. }
        ));
    }
}
