//! Pure. Answers of the API as bytes: exact bodies, fields and media types.

use super::failure::Refusal;
use super::json;
use super::metrics::{Metric, Snapshot};
use crate::base::record::{Entry, OwnedEntry, State};
use crate::base::version::Version;
use crate::http::date::Date;
use crate::http::request::Request;
use crate::http::response::{Frame, Kind};
use crate::http::status::Status;

/// The name of the field that carries the version of a value.
const VERSION_FIELD: &str = "X-KV-Version";

/// How a request wants its answer. Small, so that it can wait while the answer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub frame: Frame,
    /// Errors as JSON objects.
    pub json: bool,
}

impl Form {
    pub(crate) fn of(request: &Request<'_>) -> Form {
        Form {
            frame: Frame::of(request),
            json: request.accept.json,
        }
    }
}

/// Which write was asked for: each has its own word of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Put,
    Delete,
    Batch,
}

/// What a waiting request has come to.
#[derive(Debug)]
pub(crate) enum Answer {
    Found(Option<OwnedEntry>),
    /// Durable; the version of a single write.
    Written(Written, Option<Version>),
    Refused(Refusal),
    Metrics(Box<Page>),
}

/// The contents of `GET /metrics`.
#[derive(Debug)]
pub(crate) struct Page {
    pub sum: Snapshot,
    pub cores: usize,
    pub shards: u16,
    pub uptime: std::time::Duration,
}

/// Where answers go and are counted. One per core.
pub(crate) struct Pen {
    pub date: Date,
    pub counters: Snapshot,
}

impl Pen {
    pub(crate) fn answer(&mut self, out: &mut Vec<u8>, form: Form, answer: &Answer) {
        match answer {
            Answer::Found(entry) => {
                self.found(out, form, entry.as_ref().map(OwnedEntry::as_entry));
            }
            Answer::Written(written, version) => self.written(out, form, *written, *version),
            Answer::Refused(refusal) => self.refused(out, form, refusal),
            Answer::Metrics(page) => {
                let mut body = Vec::with_capacity(1024);
                page.sum
                    .write_json(&mut body, page.cores, page.shards, page.uptime);
                self.json(out, form, &body);
            }
        }
    }

    /// A value, or the plain `Not Found` of the original.
    pub(crate) fn found(&mut self, out: &mut Vec<u8>, form: Form, entry: Option<Entry<'_>>) {
        let live = entry.and_then(|entry| match entry.state {
            State::Live { value, text } => Some((entry.version, value, text)),
            State::Deleted => None,
        });
        let Some((version, value, text)) = live else {
            let (kind, body): (_, &[u8]) = if form.json {
                (
                    Kind::Json,
                    b"{\"error\":\"not_found\",\"message\":\"key not found\"}\n",
                )
            } else {
                (Kind::Text, b"Not Found\n")
            };
            // A deletion is a version too: a client may ask for it or a later one elsewhere.
            let grave = entry.map(|entry| spell(entry.version));
            let extra = grave.as_ref().map(|spelt| (VERSION_FIELD, &spelt[..]));
            let (frame, extra) = (form.frame, extra.as_slice());
            frame.answer(out, &self.date, Status::NotFound, kind, extra, body);
            return;
        };
        let kind = if text { Kind::Text } else { Kind::Bytes };
        let extra: [(&str, &[u8]); 1] = [(VERSION_FIELD, &spell(version))];
        form.frame
            .answer(out, &self.date, Status::Ok, kind, &extra, value);
    }

    fn written(
        &mut self,
        out: &mut Vec<u8>,
        form: Form,
        written: Written,
        version: Option<Version>,
    ) {
        let word: &[u8] = match written {
            Written::Put => b"OK",
            Written::Delete => b"Deleted",
            Written::Batch => b"Batch Processed",
        };
        let spelt = version.map(spell);
        let extra = spelt.as_ref().map(|spelt| (VERSION_FIELD, &spelt[..]));
        let date = &self.date;
        form.frame
            .answer(out, date, Status::Ok, Kind::Text, extra.as_slice(), word);
    }

    /// An error, counted.
    pub(crate) fn refused(&mut self, out: &mut Vec<u8>, form: Form, refusal: &Refusal) {
        let problem = refusal.problem();
        self.count(problem.status);
        let mut extra: Vec<(&str, &[u8])> = Vec::new();
        if let Some(allow) = refusal.allow() {
            extra.push(("Allow", allow.as_bytes()));
        }
        if refusal.is_overload() {
            self.counters.count(Metric::RejectedOverload);
            extra.push(("Retry-After", b"1"));
        }
        let (frame, date) = (form.frame, &self.date);
        if !form.json {
            frame.error(out, date, problem.status, &extra, &problem.text);
            return;
        }
        let mut body = b"{\"error\":".to_vec();
        json::put_text(&mut body, problem.code.as_bytes());
        body.extend_from_slice(b",\"message\":");
        json::put_text(&mut body, problem.text.as_bytes());
        if let Some(outcome) = refusal.outcome() {
            body.extend_from_slice(b",\"outcome\":");
            json::put_text(&mut body, outcome.as_bytes());
        }
        if let Some(items) = refusal.failed_items() {
            let places: Vec<String> = items.iter().map(u32::to_string).collect();
            let list = format!(",\"failed_items\":[{}]", places.join(","));
            body.extend_from_slice(list.as_bytes());
        }
        body.extend_from_slice(b"}\n");
        frame.answer(out, date, problem.status, Kind::Json, &extra, &body);
    }

    pub(crate) fn json(&mut self, out: &mut Vec<u8>, form: Form, body: &[u8]) {
        form.frame
            .answer(out, &self.date, Status::Ok, Kind::Json, &[], body);
    }

    /// `peers`: their states as more fields of the object, empty when the node is alone.
    pub(crate) fn health(&mut self, out: &mut Vec<u8>, form: Form, status: &str, peers: &str) {
        let body = format!(
            "{{\"status\":\"{status}\",\"version\":\"{}\"{peers}}}\n",
            env!("CARGO_PKG_VERSION")
        );
        let code = match status {
            "mismatch" | "joining" | "clock_skew" => Status::ServiceUnavailable,
            _ => Status::Ok,
        };
        self.count(code);
        form.frame
            .answer(out, &self.date, code, Kind::Json, &[], body.as_bytes());
    }

    pub(crate) fn options(&mut self, out: &mut Vec<u8>, form: Form, allow: &str) {
        let extra: [(&str, &[u8]); 4] = [
            ("Allow", allow.as_bytes()),
            // The rest is for browsers that ask before a page of a listed origin may send.
            ("Access-Control-Allow-Methods", allow.as_bytes()),
            ("Access-Control-Allow-Headers", b"Content-Type, X-KV-After"),
            ("Access-Control-Max-Age", b"600"),
        ];
        let shown = match form.frame.cors {
            Some(_) => &extra[..],
            None => &extra[..1],
        };
        let (frame, date) = (form.frame, &self.date);
        frame.answer(out, date, Status::NoContent, Kind::Text, shown, b"");
    }

    pub(crate) fn count(&mut self, status: Status) {
        match status.code() {
            500.. => self.counters.count(Metric::Errors),
            400.. => self.counters.count(Metric::BadRequests),
            _ => {}
        }
    }
}

/// [`Version`] as its `Display` spells it; by hand, because every hot answer carries one.
fn spell(version: Version) -> [u8; 25] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'.'; 25];
    for (digit, place) in text[..16].iter_mut().enumerate() {
        *place = HEX[(version.hlc >> (60 - 4 * digit) & 15) as usize];
    }
    for (digit, place) in text[17..].iter_mut().enumerate() {
        *place = HEX[(version.origin >> (28 - 4 * digit) & 15) as usize];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::failure::Failure;

    fn pen() -> Pen {
        Pen {
            date: Date::new(784_111_777_000),
            counters: Snapshot::default(),
        }
    }

    const FORM: Form = Form {
        frame: Frame {
            keep_alive: true,
            http10: false,
            head_only: false,
            cors: None,
        },
        json: false,
    };

    fn text(answer: &Answer, form: Form) -> String {
        let mut out = Vec::new();
        pen().answer(&mut out, form, answer);
        String::from_utf8(out)
            .expect("text")
            .replace("Server: kvstore\r\nX-Content-Type-Options: nosniff\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
    }

    #[test]
    fn versions_are_spelt_as_displayed() {
        let version = Version {
            hlc: 0x0123_4567_89ab_cdef,
            origin: 0xfe,
        };
        assert_eq!(spell(version), version.to_string().as_bytes());
    }

    #[test]
    fn the_words_of_the_original() {
        let version = Version { hlc: 10, origin: 2 };
        assert_eq!(
            text(&Answer::Written(Written::Put, Some(version)), FORM),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
             X-KV-Version: 000000000000000a.00000002\r\nContent-Length: 2\r\n\r\nOK"
        );
        assert!(text(&Answer::Written(Written::Delete, None), FORM).ends_with("\r\n\r\nDeleted"));
        assert!(
            text(&Answer::Written(Written::Batch, None), FORM).ends_with("\r\n\r\nBatch Processed")
        );
        assert_eq!(
            text(&Answer::Found(None), FORM),
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 10\r\n\r\nNot Found\n"
        );
    }

    #[test]
    fn errors_have_a_text_and_a_json_form() {
        let busy = Answer::Refused(Refusal::Store(Failure::Busy));
        let plain = text(&busy, FORM);
        assert!(plain.starts_with("HTTP/1.1 503 "), "{plain}");
        assert!(plain.contains("\r\nRetry-After: 1\r\n"), "{plain}");
        assert!(
            plain.ends_with("overloaded; nothing was done, try again\n"),
            "{plain}"
        );
        let json = text(
            &Answer::Refused(Refusal::UnknownPath),
            Form { json: true, ..FORM },
        );
        let body = json.split_once("\r\n\r\n").expect("a body").1;
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["error"], "no_such_endpoint");
    }

    #[test]
    fn bytes_that_are_not_text_are_not_called_text() {
        let mut out = Vec::new();
        let entry = Entry {
            version: Version::ZERO,
            state: State::Live {
                value: b"\xff",
                text: false,
            },
        };
        pen().found(&mut out, FORM, Some(entry));
        let head = String::from_utf8_lossy(&out);
        assert!(
            head.contains("Content-Type: application/octet-stream\r\n"),
            "{head}"
        );
    }
}
