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
    /// Too few replicas are alive; the write was not even sent.
    NotApplied { alive: u16, needed: u16 },
    /// Too few replicas have confirmed the write in time; it may appear yet.
    Uncertain { acks: u16, needed: u16 },
    /// So few replicas can be read, certainly; or, where those suffice, too few can take the newest value.
    Unavailable { alive: u16, needed: u16 },
    /// Too few replicas were read in time.
    TimedOut { answered: u16, needed: u16 },
    /// Nobody alive has a version as new as the client has seen.
    Stale,
    /// A peer was lost in the middle of a scan.
    Lost,
    /// Data is damaged or unreadable. Never to be told as "not found".
    Unreadable,
}

impl Failure {
    /// Of a failed write: whether it may be there all the same.
    pub(super) fn leaves_doubt(self) -> bool {
        matches!(
            self,
            Failure::Unknown | Failure::Uncertain { .. } | Failure::Lost
        )
    }
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

/// How a member that dials with another data directory is answered; it tells nothing else, so that the dialler knows.
pub(crate) const STRANGER: Status = Status::Conflict;

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
    /// A consistency nobody can meet here.
    BadLevel {
        copies: u16,
    },
    BadAfter,
    /// A member that does not belong to this cluster, and why.
    Peer(String),
    /// A member with another data directory than the one known, and what to do.
    Stranger(String),
    /// This node may not answer from what it holds. `write`: something was to be written.
    NotServing {
        code: &'static str,
        why: String,
        write: bool,
    },
    Percent,
    Body(BadBody),
    /// A web page of another site asks.
    CrossSite,
    /// `Host` is not a name of ours.
    ForeignHost,
    Store(Failure),
    /// Some shards took their part of a batch, others did not.
    Partial {
        /// Places in the array, in order.
        failed: Vec<u32>,
        /// How many there were.
        items: usize,
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
    fn words(self) -> (Status, &'static str, Cow<'static, str>) {
        match self {
            Failure::NotApplied { alive, needed } => (
                Status::ServiceUnavailable,
                "unavailable",
                format!("{alive} of the {needed} replicas needed can be reached; nothing was done; outcome: not_applied")
                    .into(),
            ),
            Failure::Uncertain { acks, needed } => (
                Status::ServiceUnavailable,
                "uncertain",
                format!("{acks} of the {needed} replicas needed have confirmed; it may be kept; outcome: unknown")
                    .into(),
            ),
            Failure::Unavailable { alive, needed } if alive < needed => (
                Status::ServiceUnavailable,
                "unavailable",
                format!("too few replicas can be read: {alive} of the {needed} needed").into(),
            ),
            Failure::Unavailable { .. } => (
                Status::ServiceUnavailable,
                "unavailable",
                "too few replicas can take the newest value, so a later read might not find it".into(),
            ),
            Failure::TimedOut { answered, needed } => (
                Status::GatewayTimeout,
                "timeout",
                format!("{answered} of the {needed} replicas needed answered in time").into(),
            ),
            other => {
                let (status, code, text) = other.fixed_words();
                (status, code, text.into())
            }
        }
    }

    fn fixed_words(self) -> (Status, &'static str, &'static str) {
        let unavailable = Status::ServiceUnavailable;
        match self {
            Failure::Stale => (
                Status::GatewayTimeout,
                "stale",
                "no replica that can be read has the version asked for with X-KV-After",
            ),
            Failure::Busy => (
                unavailable,
                "overloaded",
                "overloaded; nothing was done, try again",
            ),
            Failure::Full => (
                Status::InsufficientStorage,
                "disk_full",
                "the disk is full or refuses writes; nothing was done, reads go on",
            ),
            Failure::Closed => (
                unavailable,
                "stopping",
                "the node is stopping; nothing was done",
            ),
            Failure::Unknown => (
                unavailable,
                "unknown",
                "outcome: unknown; the log failed under this write, it may or may not be kept",
            ),
            Failure::Unreadable => (
                Status::InternalServerError,
                "unreadable",
                "stored data cannot be read; see the node's log",
            ),
            // The others count replicas and have their numbers in the text.
            Failure::Lost
            | Failure::NotApplied { .. }
            | Failure::Uncertain { .. }
            | Failure::Unavailable { .. }
            | Failure::TimedOut { .. } => (
                unavailable,
                "unavailable",
                "a replica was lost on the way; try again",
            ),
        }
    }

    /// What a client may believe of its write.
    fn outcome(self) -> &'static str {
        match self {
            Failure::Unknown | Failure::Uncertain { .. } => "unknown",
            _ => "not_applied",
        }
    }
}

impl Refusal {
    /// The one map from errors to answers.
    pub(crate) fn problem(&self) -> Problem<'_> {
        let bad = Status::BadRequest;
        let (status, code, text): (_, _, Cow<'_, str>) = match self {
            Refusal::UnknownPath => (Status::NotFound, "no_such_endpoint", ENDPOINTS.into()),
            Refusal::Method { allow } => (
                Status::MethodNotAllowed,
                "method_not_allowed",
                format!("method not allowed; allowed: {allow}").into(),
            ),
            Refusal::MissingKey => (bad, "missing_key", "missing query parameter: key".into()),
            Refusal::KeyTooLong { bytes } => (
                bad,
                "key_too_long",
                format!("key is too long: {bytes} bytes, at most {KEY_BYTES_MAX}").into(),
            ),
            Refusal::BadLimit => (
                bad,
                "bad_limit",
                "limit must be a whole number above 0".into(),
            ),
            Refusal::Percent => (
                bad,
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
            Refusal::Store(failure) => failure.words(),
            Refusal::BadLevel { copies } => (
                bad,
                "bad_consistency",
                format!(
                    "consistency is one, quorum or all, w and r a number from 1 to {copies}: a key has {copies} copies"
                )
                .into(),
            ),
            Refusal::BadAfter => (
                bad,
                "bad_version",
                "X-KV-After must be a version as X-KV-Version spells it".into(),
            ),
            Refusal::Peer(mismatch) => (Status::Forbidden, "not_a_peer", mismatch.as_str().into()),
            Refusal::Stranger(why) => (STRANGER, "other_directory", why.as_str().into()),
            Refusal::NotServing { code, why, .. } => {
                (Status::ServiceUnavailable, *code, why.as_str().into())
            }
            Refusal::Partial {
                failed,
                items,
                failure,
            } => {
                let (status, code, text) = failure.words();
                let text = format!("{} of {items} items failed: {text}", failed.len());
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

    /// Whether the write it answers was done: `not_applied` or `unknown`. `None`: nothing was to be written, or
    /// the status tells.
    pub(crate) fn outcome(&self) -> Option<&'static str> {
        match self {
            Refusal::Store(failure) | Refusal::Partial { failure, .. } => Some(failure.outcome()),
            Refusal::NotServing { write: true, .. } => Some("not_applied"),
            _ => None,
        }
    }

    /// Of a batch that was done in part: the places in its array of those items that were not.
    pub(crate) fn failed_items(&self) -> Option<&[u32]> {
        match self {
            Refusal::Partial { failed, .. } => Some(failed),
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
