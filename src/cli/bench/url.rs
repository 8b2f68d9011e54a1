//! Pure. `http://host:port/path?query`, as far as a load generator needs it.

use crate::cli::StartError;
use crate::load::template::Template;

/// `http://host:port/path?query`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Url {
    /// For the resolver, and for the Host field.
    pub(in crate::cli) authority: String,
    pub(in crate::cli) path: Template,
}

/// A URL with or without `http://`.
pub(in crate::cli) fn url(text: &str) -> Result<Url, StartError> {
    let refused = |why: &str| {
        let example = "http://localhost:8081/get?key=a";
        StartError::usage(
            format!("{text:?}: {why}"),
            format!("a URL is like {example}"),
        )
    };
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(refused("plain HTTP only, without TLS")),
        Some(_) => return Err(refused("not an http:// URL")),
        None => text,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(path_at);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    // Between the places of a template; inside them a space is grammar.
    let outside = path.split("{{").map(|piece| match piece.split_once("}}") {
        Some((_, after)) => after,
        None => piece,
    });
    if outside
        .flat_map(str::bytes)
        .any(|byte| byte <= b' ' || byte == 0x7f)
    {
        return Err(refused(
            "a space or control character, which must be percent-encoded",
        ));
    }
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| !port.ends_with(']'));
    let host = port.map_or(authority, |port| {
        &authority[..authority.len() - port.len() - 1]
    });
    if host.is_empty() || host.contains(['@', ' ']) {
        return Err(refused("no host"));
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(refused("the port is no number up to 65535"));
    }
    let authority = match port {
        Some(_) => authority.to_string(),
        None => format!("{authority}:80"),
    };
    Ok(Url {
        authority,
        path: super::wanted::template("URL", &path)?,
    })
}
