//! The text of the configuration protocol to values.
//!
//! Errors name the field, never its value: the value may be a key.

use ipnet::IpNet;

use super::{Device, Key, Peer, Set, SetPeer};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    #[error("configuration request starts with something else than {expected}")]
    Start { expected: &'static str },
    #[error("configuration line {line} is not KEY=VALUE")]
    NotAPair { line: usize },
    #[error("configuration line {line} has an unknown key {key}")]
    UnknownKey { line: usize, key: String },
    #[error("configuration line {line} has a bad value for {key}")]
    BadValue { line: usize, key: &'static str },
    #[error("configuration answer ends without an error number")]
    NoErrno,
    #[error("device refused the configuration request with error number {errno}")]
    Refused { errno: i32 },
}

impl Set {
    /// Reads a request, with or without the empty line that ends it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, line)| line) != Some("set=1") {
            return Err(ParseError::Start { expected: "set=1" });
        }
        let mut set = Set::default();
        for (index, text) in lines.take_while(|(_, line)| !line.is_empty()) {
            let pair = Pair::new(index, text)?;
            match (pair.key, set.peers.last_mut()) {
                ("public_key", _) => {
                    set.peers.push(SetPeer { public_key: pair.hex("public_key")?, ..SetPeer::default() });
                }
                (_, Some(peer)) => peer.read(&pair)?,
                ("private_key", None) => set.private_key = Some(pair.hex("private_key")?),
                ("listen_port", None) => set.listen_port = Some(pair.number("listen_port")?),
                ("fwmark", None) if pair.value.is_empty() => set.fwmark = Some(0),
                ("fwmark", None) => set.fwmark = Some(pair.number("fwmark")?),
                ("replace_peers", None) => set.replace_peers = pair.is_true("replace_peers")?,
                (_, None) => return Err(pair.unknown()),
            }
        }
        Ok(set)
    }
}

impl SetPeer {
    fn read(&mut self, pair: &Pair<'_>) -> Result<(), ParseError> {
        match pair.key {
            "remove" => self.remove = pair.is_true("remove")?,
            "update_only" => self.update_only = pair.is_true("update_only")?,
            "preshared_key" => self.preshared_key = Some(pair.hex("preshared_key")?),
            "endpoint" => self.endpoint = Some(pair.number("endpoint")?),
            "persistent_keepalive_interval" => {
                self.keepalive = Some(pair.number("persistent_keepalive_interval")?);
            }
            "replace_allowed_ips" => {
                self.replace_allowed_ips = pair.is_true("replace_allowed_ips")?;
            }
            "allowed_ip" => match pair.value.strip_prefix('-') {
                Some(value) => self.removed_ips.push(pair.network(value)?),
                None => self.allowed_ips.push(pair.network(pair.value)?),
            },
            "protocol_version" if pair.value == "1" => {}
            "protocol_version" => return Err(pair.bad("protocol_version")),
            _ => return Err(pair.unknown()),
        }
        Ok(())
    }
}

impl Device {
    /// Reads the answer to `get=1`. Keys that a later version of the protocol added are skipped.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut device = Device::default();
        let mut current: Option<(Key, Peer)> = None;
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() {
                break;
            }
            let pair = Pair::new(index, line)?;
            match (pair.key, current.as_mut()) {
                ("errno", _) => {
                    device.peers.extend(current);
                    return match pair.number("errno")? {
                        0 => Ok(device),
                        errno => Err(ParseError::Refused { errno }),
                    };
                }
                ("public_key", _) => {
                    let next = (pair.hex("public_key")?, Peer::default());
                    device.peers.extend(current.replace(next));
                }
                (_, Some((_, peer))) => peer.read(&pair)?,
                ("private_key", None) => device.private_key = Some(pair.hex("private_key")?),
                ("listen_port", None) => device.listen_port = pair.number("listen_port")?,
                ("fwmark", None) => device.fwmark = pair.number("fwmark")?,
                (_, None) => {}
            }
        }
        Err(ParseError::NoErrno)
    }
}

impl Peer {
    fn read(&mut self, pair: &Pair<'_>) -> Result<(), ParseError> {
        match pair.key {
            "preshared_key" => {
                // wireguard-go prints an absent preshared key as zeros.
                self.preshared_key = Some(pair.hex("preshared_key")?).filter(|key| *key != super::NO_KEY);
            }
            "endpoint" => self.endpoint = Some(pair.number("endpoint")?),
            "persistent_keepalive_interval" => {
                self.keepalive = pair.number("persistent_keepalive_interval")?;
            }
            "allowed_ip" => {
                self.allowed_ips.insert(pair.network(pair.value)?);
            }
            "last_handshake_time_sec" => {
                self.last_handshake = pair.number("last_handshake_time_sec")?;
            }
            "rx_bytes" => self.received_bytes = pair.number("rx_bytes")?,
            "tx_bytes" => self.sent_bytes = pair.number("tx_bytes")?,
            _ => {}
        }
        Ok(())
    }
}

/// Reads the answer to `set=1`.
pub(crate) fn errno(text: &str) -> Result<(), ParseError> {
    Device::parse(text).map(|_| ())
}

/// One line of the protocol.
struct Pair<'a> {
    line: usize,
    key: &'a str,
    value: &'a str,
}

impl<'a> Pair<'a> {
    fn new(index: usize, text: &'a str) -> Result<Self, ParseError> {
        let line = index + 1;
        let (key, value) = text.split_once('=').ok_or(ParseError::NotAPair { line })?;
        Ok(Pair { line, key, value })
    }

    fn bad(&self, key: &'static str) -> ParseError {
        ParseError::BadValue { line: self.line, key }
    }

    fn unknown(&self) -> ParseError {
        ParseError::UnknownKey { line: self.line, key: self.key.to_owned() }
    }

    fn number<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, ParseError> {
        self.value.parse().map_err(|_| self.bad(key))
    }

    fn is_true(&self, key: &'static str) -> Result<bool, ParseError> {
        (self.value == "true").then_some(true).ok_or_else(|| self.bad(key))
    }

    fn network(&self, value: &str) -> Result<IpNet, ParseError> {
        value.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| self.bad("allowed_ip"))
    }

    fn hex(&self, key: &'static str) -> Result<Key, ParseError> {
        let digits = self.value.as_bytes();
        let mut bytes = Key::default();
        if digits.len() != 2 * bytes.len() {
            return Err(self.bad(key));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |character: u8| char::from(character).to_digit(16);
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(self.bad(key));
            };
            *byte = (high * 16 + low) as u8;
        }
        Ok(bytes)
    }
}
