//! One request as the rest of the server sees it: only the fields we act on, already judged and typed.

/// Methods of RFC 9110 and 5789. Anything else was answered 501 by the parser, and so was CONNECT: what
/// follows it on the connection would not be HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Trace,
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Trace => "TRACE",
        }
    }
}

/// A whole request; every slice points into the bytes given to the parser, or into the parser itself.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub method: Method,
    /// Starts with `/`, or is exactly `*` (OPTIONS only). Still percent-encoded, each `%` followed by two hex
    /// digits; never normalised: `..` and `//` are ordinary bytes.
    pub path: &'a [u8],
    /// After the first `?`; still encoded and not yet checked (see `http::query`).
    pub query: Option<&'a [u8]>,
    /// The authority: of an absolute-form target when there was one, else of the `Host` field. May be empty.
    /// `None` is possible in HTTP/1.0 only.
    pub host: Option<&'a [u8]>,
    pub http10: bool,
    /// Whether the client wants and the version allows another request on this connection.
    pub keep_alive: bool,
    pub accept: Accept,
    pub authorization: Option<&'a [u8]>,
    pub origin: Option<&'a [u8]>,
    pub fetch_site: FetchSite,
    /// `X-KV-After`: a version the client has seen.
    pub after: Option<&'a [u8]>,
    /// All header fields as they came, with the blank line; see `http::fields`.
    pub fields: &'a [u8],
    /// Whole, with chunks joined. Present for every method; GET has no use for it.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Whether a web page of another site sent this: a browser says so in `Sec-Fetch-Site`, or names an
    /// `Origin` whose authority is not the one it talks to (`null` is foreign). curl and hey send neither.
    #[must_use]
    pub fn is_cross_site(&self) -> bool {
        let origin_differs = self.origin.is_some_and(|origin| {
            let authority = origin
                .strip_prefix(b"http://")
                .or_else(|| origin.strip_prefix(b"https://"));
            authority.is_none()
                || !authority
                    .zip(self.host)
                    .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
        });
        origin_differs || self.fetch_site == FetchSite::Other
    }
}

/// What `Sec-Fetch-Site` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchSite {
    /// No such field: not a browser, or an old one.
    #[default]
    Absent,
    /// `same-origin`, or `none` (typed into the address bar).
    Own,
    /// `same-site`, `cross-site` and whatever comes later.
    Other,
}

/// Media types the `Accept` fields name outright; wildcards name nothing, `q=0` takes a name back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    pub json: bool,
    pub ndjson: bool,
    pub html: bool,
    pub text_plain: bool,
    pub openmetrics: bool,
}

impl Accept {
    /// Adds one `Accept` field. Nonsense in it names nothing.
    pub(crate) fn add(&mut self, value: &[u8]) {
        for range in value.split(|&byte| byte == b',') {
            let mut parts = range.split(|&byte| byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let wanted = !parts.any(|parameter| is_zero_quality(parameter.trim_ascii()));
            let bit = match name {
                name if name.eq_ignore_ascii_case(b"application/json") => &mut self.json,
                name if name.eq_ignore_ascii_case(b"application/x-ndjson") => &mut self.ndjson,
                name if name.eq_ignore_ascii_case(b"text/html") => &mut self.html,
                name if name.eq_ignore_ascii_case(b"text/plain") => &mut self.text_plain,
                name if name.eq_ignore_ascii_case(b"application/openmetrics-text") => {
                    &mut self.openmetrics
                }
                _ => continue,
            };
            *bit |= wanted;
        }
    }
}

/// `q=0`, `q=0.0`, `q=0.000`.
fn is_zero_quality(parameter: &[u8]) -> bool {
    let Some(value) = parameter
        .strip_prefix(b"q=")
        .or_else(|| parameter.strip_prefix(b"Q="))
    else {
        return false;
    };
    !value.is_empty() && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Accept {
        let mut accept = Accept::default();
        accept.add(value.as_bytes());
        accept
    }

    #[test]
    fn accept_counts_names_only() {
        assert_eq!(accept("*/*, text/*;q=0.9"), Accept::default());
        assert!(accept("application/JSON").json);
        assert!(!accept("application/json;q=0").json);
        assert!(!accept("application/json; q=0.000").json);
        assert!(accept("application/json;q=0.5").json);
        let prometheus = accept(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
        );
        assert!(prometheus.openmetrics && prometheus.text_plain && !prometheus.json);
        assert_eq!(accept(",;,=;"), Accept::default());
    }

    fn request<'a>(
        host: Option<&'a str>,
        origin: Option<&'a str>,
        fetch_site: FetchSite,
    ) -> Request<'a> {
        Request {
            method: Method::Post,
            path: b"/put",
            query: None,
            host: host.map(str::as_bytes),
            http10: false,
            keep_alive: true,
            accept: Accept::default(),
            authorization: None,
            origin: origin.map(str::as_bytes),
            fetch_site,
            after: None,
            fields: b"",
            body: b"",
        }
    }

    #[test]
    fn another_site_is_told_by_origin_or_fetch_site() {
        let foreign = |host, origin, site| request(host, origin, site).is_cross_site();
        assert!(!foreign(Some("h:1"), None, FetchSite::Absent));
        assert!(!foreign(Some("h:1"), Some("http://H:1"), FetchSite::Own));
        assert!(foreign(Some("h:1"), Some("http://h:2"), FetchSite::Absent));
        assert!(foreign(Some("h:1"), Some("null"), FetchSite::Absent));
        assert!(foreign(None, Some("http://h"), FetchSite::Absent));
        assert!(foreign(Some("h:1"), None, FetchSite::Other));
    }
}
