//! Pure. Settings that name places, as lists separated by commas: members, zones, addresses, host names and origins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::settings::whole;

/// The parts of a list separated by commas, white space and empty parts gone.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

pub(super) fn peers(value: &str) -> Result<Vec<String>, String> {
    list(value)
        .map(|peer| match peer.rsplit_once(':') {
            Some((host, port)) if is_host(host) && whole::<u16>(port, 1..=65535).is_ok() => {
                Ok(peer.to_string())
            }
            _ => Err("host:port entries separated by commas, without http://".to_string()),
        })
        .collect()
}

/// Which member lies in which zone.
pub(super) fn zones(value: &str) -> Result<Vec<(String, String)>, String> {
    let plain = |b: u8| b.is_ascii_graphic() && !b",;=".contains(&b);
    list(value)
        .map(|entry| match entry.split_once('=') {
            Some((member, zone))
                if peers(member).is_ok_and(|list| list.len() == 1)
                    && !zone.is_empty()
                    && zone.bytes().all(plain) =>
            {
                Ok((member.to_string(), zone.to_string()))
            }
            _ => Err("host:port=zone entries separated by commas".to_string()),
        })
        .collect()
}

/// A host name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    }
}

fn is_host_name(name: &str) -> bool {
    let clean = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !name.is_empty() && name.bytes().all(clean)
}

pub(super) fn addresses(value: &str) -> Result<Vec<IpAddr>, String> {
    let mut addresses = Vec::new();
    for part in list(value) {
        let bare = part.trim_start_matches('[').trim_end_matches(']');
        let named: &[IpAddr] = match bare.parse() {
            Ok(address) => &[address],
            Err(_) if part == "localhost" => &[
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ],
            Err(_) => &[],
        };
        if named.is_empty() {
            addresses.clear();
            break;
        }
        for address in named {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
    }
    if addresses.is_empty() {
        return Err("IP addresses or localhost, separated by commas, without a port".to_string());
    }
    Ok(addresses)
}

pub(super) fn host_names(value: &str) -> Result<Vec<String>, String> {
    list(value)
        .map(|name| {
            if is_host_name(name) {
                Ok(name.to_ascii_lowercase())
            } else {
                Err("host names separated by commas, without a port".to_string())
            }
        })
        .collect()
}

pub(super) fn origins(value: &str) -> Result<Vec<String>, String> {
    list(value)
        .map(|origin| {
            let authority = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            match authority {
                Some(rest) if !rest.is_empty() && !rest.contains(['/', '*', '?', '@']) => {
                    Ok(origin.to_ascii_lowercase())
                }
                _ => Err(
                    "origins like https://app.example, without a path, separated by commas"
                        .to_string(),
                ),
            }
        })
        .collect()
}
