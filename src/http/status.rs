//! Status codes this server sends, and the refusal that ends a connection.

/// Every status we answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Status {
    Ok = 200,
    NoContent = 204,
    MultiStatus = 207,
    NotModified = 304,
    BadRequest = 400,
    Unauthorized = 401,
    Forbidden = 403,
    NotFound = 404,
    MethodNotAllowed = 405,
    RequestTimeout = 408,
    Conflict = 409,
    PreconditionFailed = 412,
    ContentTooLarge = 413,
    UriTooLong = 414,
    UnsupportedMediaType = 415,
    ExpectationFailed = 417,
    MisdirectedRequest = 421,
    FieldsTooLarge = 431,
    InternalServerError = 500,
    NotImplemented = 501,
    ServiceUnavailable = 503,
    GatewayTimeout = 504,
    VersionNotSupported = 505,
    InsufficientStorage = 507,
}

impl Status {
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The whole first line of an answer, CRLF included.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Status::Ok => "HTTP/1.1 200 OK\r\n",
            Status::NoContent => "HTTP/1.1 204 No Content\r\n",
            Status::MultiStatus => "HTTP/1.1 207 Multi-Status\r\n",
            Status::NotModified => "HTTP/1.1 304 Not Modified\r\n",
            Status::BadRequest => "HTTP/1.1 400 Bad Request\r\n",
            Status::Unauthorized => "HTTP/1.1 401 Unauthorized\r\n",
            Status::Forbidden => "HTTP/1.1 403 Forbidden\r\n",
            Status::NotFound => "HTTP/1.1 404 Not Found\r\n",
            Status::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed\r\n",
            Status::RequestTimeout => "HTTP/1.1 408 Request Timeout\r\n",
            Status::Conflict => "HTTP/1.1 409 Conflict\r\n",
            Status::PreconditionFailed => "HTTP/1.1 412 Precondition Failed\r\n",
            Status::ContentTooLarge => "HTTP/1.1 413 Content Too Large\r\n",
            Status::UriTooLong => "HTTP/1.1 414 URI Too Long\r\n",
            Status::UnsupportedMediaType => "HTTP/1.1 415 Unsupported Media Type\r\n",
            Status::ExpectationFailed => "HTTP/1.1 417 Expectation Failed\r\n",
            Status::MisdirectedRequest => "HTTP/1.1 421 Misdirected Request\r\n",
            Status::FieldsTooLarge => "HTTP/1.1 431 Request Header Fields Too Large\r\n",
            Status::InternalServerError => "HTTP/1.1 500 Internal Server Error\r\n",
            Status::NotImplemented => "HTTP/1.1 501 Not Implemented\r\n",
            Status::ServiceUnavailable => "HTTP/1.1 503 Service Unavailable\r\n",
            Status::GatewayTimeout => "HTTP/1.1 504 Gateway Timeout\r\n",
            Status::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported\r\n",
            Status::InsufficientStorage => "HTTP/1.1 507 Insufficient Storage\r\n",
        }
    }

    /// 204 and 304 end at the blank line: no body and no length, whatever the caller has (RFC 9110 8.6).
    pub(crate) fn has_body(self) -> bool {
        !matches!(self, Status::NoContent | Status::NotModified)
    }
}

/// A request we will not serve: answer `status` with `text`, close, and never look at the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    pub status: Status,
    /// Fixed text for people: no byte of the request is echoed.
    pub text: &'static str,
}

impl Reject {
    #[must_use]
    pub const fn new(status: Status, text: &'static str) -> Reject {
        Reject { status, text }
    }

    pub(crate) const fn bad(text: &'static str) -> Reject {
        Reject::new(Status::BadRequest, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_spells_the_code() {
        for status in [
            Status::Ok,
            Status::BadRequest,
            Status::FieldsTooLarge,
            Status::InsufficientStorage,
        ] {
            assert_eq!(&status.line()[9..12], status.code().to_string());
            assert!(status.line().ends_with("\r\n"));
        }
    }
}
