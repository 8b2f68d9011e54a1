//! Pure. Which `Host` a loopback client may name, the guard against DNS rebinding, and which other sites may send.
//!
//! A web page of `evil.example` whose name suddenly resolves to 127.0.0.1 counts as our own origin for the
//! browser, and only `Host` still tells. A request from a loopback address must therefore name us by an IP
//! address, by a loopback name, or by a configured one. Other clients came over the network and reached us
//! by whatever name they have; the attack needs nothing of us there that it could not do directly.

use std::net::{IpAddr, Ipv6Addr};

/// Whom this node lets in, of those a browser speaks for.
#[derive(Clone, Debug, Default)]
pub struct Door {
    /// Host names clients may use besides loopback names and IP addresses (no port).
    pub host_names: Vec<String>,
    /// Other sites whose pages may send requests and read the answers.
    pub origins: Vec<Origin>,
}

/// A site, and what answers to its pages say to their browser.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    name: &'static str,
    fields: &'static str,
}

impl Origin {
    /// `name`: as browsers write it, `https://app.example`. Lives as long as the process, so that each request may carry
    /// it: there are as many as settings name.
    #[must_use]
    pub fn new(name: &str) -> Origin {
        let fields = format!(
            "Access-Control-Allow-Origin: {name}\r\nVary: Origin\r\n\
             Access-Control-Expose-Headers: X-KV-Version, X-Kv-Next\r\n"
        );
        Origin {
            name: name.to_owned().leak(),
            fields: fields.leak(),
        }
    }
}

impl Door {
    /// What answers to pages of this origin say, if it is listed: they may send requests although it is another site's.
    pub(super) fn cors_of(&self, origin: Option<&[u8]>) -> Option<&'static str> {
        let origin = origin?;
        let is_it = |ours: &&Origin| ours.name.as_bytes().eq_ignore_ascii_case(origin);
        self.origins.iter().find(is_it).map(|ours| ours.fields)
    }
}

/// Whether `host` (with or without a port) is a name of ours. Absent or empty is no browser's: allowed.
pub(crate) fn is_ours(host: Option<&[u8]>, names: &[String]) -> bool {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return true;
    };
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    if let Some(rest) = host.strip_prefix('[') {
        return rest
            .split_once(']')
            .is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is = |ours: &str| name.eq_ignore_ascii_case(ours);
    is("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok()
        || names.iter().any(|ours| is(ours))
}

/// Whether a client at this address is on this machine.
pub(crate) fn is_loopback(client: IpAddr) -> bool {
    client.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_addresses_and_configured_names_pass() {
        let names = ["Node1.internal".to_owned()];
        for (host, want) in [
            ("localhost", true),
            ("LOCALHOST:8081", true),
            ("localhost.:8081", true),
            ("a.localhost", true),
            ("127.0.0.1:8081", true),
            ("10.1.2.3", true),
            ("[::1]:8081", true),
            ("[fe80::1]", true),
            ("[evil]:1", false),
            ("node1.INTERNAL:80", true),
            ("", true),
            ("evil.example", false),
            ("localhost.evil.example:8081", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(is_ours(Some(host.as_bytes()), &names), want, "{host}");
        }
        assert!(is_ours(None, &names));
        assert!(!is_ours(Some(b"\xff"), &names));
    }

    #[test]
    fn mapped_loopback_is_loopback() {
        for (address, want) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.9", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(is_loopback(address), want, "{address}");
        }
    }
}
