//! Pure. Everything that can go wrong with a request after HTTP has understood it, and the one map from
//! there to status, code and text.

use std::borrow::Cow;

use super::api::ENDPOINTS;
use super::body::BadBody;
use crate::base::limits::KEY_BYTES_MAX;
use crate::http::query::BadPercent;
use crate::http::status::Status;
use crate::store::Refused;
use crate::store::completions::Failed;

/// Why the store's side of a request failed, in terms that cross cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A queue is full; nothing happened. The client may try again soon.
    Busy,
    /// The disk is full or fails, so no room can be made for the write; nothing happened. Reads go on.
    Full,
    /// The store is closing or its log has failed; nothing happened.
    Closed,
    /// The log failed under the write: it may or may not be there after a restart.
    Unknown,
    /// Data is damaged or unreadable. Never to be told as "not found".
    Unreadable,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::Busy => Failure::Busy,
            Refused::Full => Failure::Full,
            Refused::Closed => Failure::Closed,
        }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Failure {
        match failed {
            Failed::Unknown => Failure::Unknown,
            Failed::Full => Failure::Full,
        }
    }
}

/// Why a request gets an error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownPath,
    Method {
        allow: &'static str,
    },
    MissingKey,
    KeyTooLong {
        bytes: usize,
    },
    BadLimit,
    Percent,
    Body(BadBody),
    /// A web page of another site asks.
    CrossSite,
    /// `Host` is not a name of ours.
    ForeignHost,
    Store(Failure),
    /// Some shards took their part of a batch, others did not.
    Partial {
        failed: u32,
        items: u32,
        failure: Failure,
    },
}

impl From<BadPercent> for Refusal {
    fn from(_: BadPercent) -> Refusal {
        Refusal::Percent
    }
}

impl From<BadBody> for Refusal {
    fn from(bad: BadBody) -> Refusal {
        Refusal::Body(bad)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Store(failure)
    }
}

/// An error answer in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem<'a> {
    pub status: Status,
    /// For programs: the `error` of the JSON form.
    pub code: &'static str,
    /// For people; never holds bytes of the request.
    pub text: Cow<'a, str>,
}

impl Failure {
    fn words(self) -> (Status, &'static str, &'static str) {
        match self {
            Failure::Busy => (
                Status::ServiceUnavailable,
                "overloaded",
                "overloaded; nothing was done, try again",
            ),
            Failure::Full => (
                Status::InsufficientStorage,
                "disk_full",
                "the disk is full or refuses writes; nothing was done, reads go on",
            ),
            Failure::Closed => (
                Status::ServiceUnavailable,
                "stopping",
                "the node is stopping; nothing was done",
            ),
            Failure::Unknown => (
                Status::ServiceUnavailable,
                "unknown",
                "outcome: unknown; the log failed under this write, it may or may not be kept",
            ),
            Failure::Unreadable => (
                Status::InternalServerError,
                "unreadable",
                "stored data cannot be read; see the node's log",
            ),
        }
    }
}

impl Refusal {
    /// The one map from errors to answers.
    pub(crate) fn problem(&self) -> Problem<'_> {
        let (status, code, text): (_, _, Cow<'_, str>) = match self {
            Refusal::UnknownPath => (Status::NotFound, "no_such_endpoint", ENDPOINTS.into()),
            Refusal::Method { allow } => (
                Status::MethodNotAllowed,
                "method_not_allowed",
                format!("method not allowed; allowed: {allow}").into(),
            ),
            Refusal::MissingKey => (
                Status::BadRequest,
                "missing_key",
                "missing query parameter: key".into(),
            ),
            Refusal::KeyTooLong { bytes } => (
                Status::BadRequest,
                "key_too_long",
                format!("key is too long: {bytes} bytes, at most {KEY_BYTES_MAX}").into(),
            ),
            Refusal::BadLimit => (
                Status::BadRequest,
                "bad_limit",
                "limit must be a whole number above 0".into(),
            ),
            Refusal::Percent => (
                Status::BadRequest,
                "bad_percent_encoding",
                BadPercent::TEXT.into(),
            ),
            Refusal::Body(bad) => (bad.status, "bad_body", bad.text.as_str().into()),
            Refusal::CrossSite => (
                Status::Forbidden,
                "cross_site",
                "requests from web pages of other sites are refused".into(),
            ),
            Refusal::ForeignHost => (
                Status::MisdirectedRequest,
                "foreign_host",
                "this Host is not a name of this node; use localhost, an IP address or a name it was started with (-host-names)"
                    .into(),
            ),
            Refusal::Store(failure) => {
                let (status, code, text) = failure.words();
                (status, code, text.into())
            }
            Refusal::Partial {
                failed,
                items,
                failure,
            } => {
                let (status, code, text) = failure.words();
                let text = format!("{failed} of {items} items failed: {text}");
                (status, code, text.into())
            }
        };
        Problem { status, code, text }
    }

    /// The `Allow` field of a 405.
    pub(crate) fn allow(&self) -> Option<&'static str> {
        match self {
            Refusal::Method { allow } => Some(allow),
            _ => None,
        }
    }

    /// Whether a client does well to try again at once: `Retry-After`.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(
            self,
            Refusal::Store(Failure::Busy)
                | Refusal::Partial {
                    failure: Failure::Busy,
                    ..
                }
        )
    }
}
