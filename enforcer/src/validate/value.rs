//! Single values: from their text to what they mean, or what was expected instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ipnet::{IpNet, Ipv6Net};

use crate::model::Protocol;

/// RFC 1123 label.
pub fn dns_label(text: &str) -> Result<(), String> {
    if is_label(text) {
        return Ok(());
    }
    Err(format!(
        "\"{text}\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
    ))
}

/// RFC 1123 subdomain.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(());
    }
    Err(format!(
        "\"{text}\" is no DNS name, expected a-z, 0-9, - and ., beginning and ending with a letter or digit"
    ))
}

/// `[PREFIX/]NAME`
pub fn label_key(text: &str) -> Result<(), String> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    if is_name(name) && prefix.is_none_or(|prefix| dns_subdomain(prefix).is_ok()) {
        return Ok(());
    }
    Err(format!("\"{text}\" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and ."))
}

/// May be empty, as in Kubernetes.
pub fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || is_name(text) {
        return Ok(());
    }
    Err(format!("\"{text}\" is no value of a label, expected at most 63 letters, digits, -, _ and ."))
}

/// Kubernetes' qualified names without their prefix, and values that are not empty.
fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || b"-_.".contains(&byte))
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub fn port(port: u16) -> Result<(), String> {
    if port == 0 { Err("0 is not a port, expected 1 to 65535".to_owned()) } else { Ok(()) }
}

pub const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// A WireGuard key.
pub fn public_key(text: &str) -> Result<[u8; 32], String> {
    let expected = "expected 32 bytes in base64 (44 characters)";
    let bytes = STANDARD.decode(text).map_err(|_| format!("\"{text}\" is not base64, {expected}"))?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| format!("\"{text}\" has {length} bytes, {expected}"))
}

/// A prefix without host bits.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    let range: IpNet = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a range of addresses, expected ADDRESS/LENGTH"))?;
    // One thing has one name: checks of IPv4 ranges would not see it.
    if mapped().contains(&range) {
        return Err(format!("\"{text}\" is IPv4 written as IPv6, expected it as IPv4"));
    }
    if range.addr() == range.network() {
        Ok(range)
    } else {
        Err(format!("\"{text}\" has bits behind its prefix, expected {}", range.trunc()))
    }
}

/// Where IPv4 lies in IPv6, in maps as well.
pub fn mapped() -> IpNet {
    Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96).into()
}

/// Address and port of a tunnel's UDP socket.
pub fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let endpoint: SocketAddr = text.parse().map_err(|_| {
        format!("\"{text}\" is not an endpoint, expected ADDRESS:PORT, like 203.0.113.1:51820")
    })?;
    if endpoint.port() == 0 || endpoint.ip().is_unspecified() || endpoint.ip().is_multicast() {
        return Err(format!("\"{text}\" cannot be reached, expected a host's address and a port above 0"));
    }
    Ok(endpoint)
}

/// Backends that are refused whatever an administrator allows.
pub fn backend(address: IpAddr) -> Result<(), String> {
    let what = match address.to_canonical() {
        ip if ip.is_loopback() => "a loopback address",
        ip if ip.is_unspecified() => "the unspecified address",
        ip if ip.is_multicast() => "a multicast address",
        IpAddr::V4(ip) if ip.is_link_local() => "a link-local address",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address",
        IpAddr::V6(ip) if ip.is_unicast_link_local() => "a link-local address",
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(()),
    };
    Err(format!("{address} is {what}, expected the address of a host behind the gateway"))
}

/// Nanoseconds since the Unix epoch; a time before it is 0, which is past as well.
pub fn unix_ns(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a time, expected RFC 3339, like 2027-01-01T00:00:00Z"))?;
    Ok(u64::try_from(time.as_nanosecond()).unwrap_or_default())
}
