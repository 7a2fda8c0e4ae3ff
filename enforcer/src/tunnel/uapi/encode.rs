//! Values to the text of the configuration protocol.

use std::fmt::Write as _;

use super::{Device, Key, Set, SetPeer};

/// Appends one `key=value` line.
macro_rules! line {
    ($text:expr, $key:literal, $value:expr) => {
        // Writing to a String cannot fail.
        let _ = writeln!($text, concat!($key, "={}"), $value);
    };
}

impl Set {
    /// The whole request with the empty line that ends it.
    pub fn encode(&self) -> String {
        let mut text = String::from("set=1\n");
        if let Some(key) = &self.private_key {
            line!(text, "private_key", hex(key));
        }
        if let Some(port) = self.listen_port {
            line!(text, "listen_port", port);
        }
        if let Some(mark) = self.fwmark {
            line!(text, "fwmark", mark);
        }
        if self.replace_peers {
            text.push_str("replace_peers=true\n");
        }
        for peer in &self.peers {
            peer.encode(&mut text);
        }
        text.push('\n');
        text
    }
}

impl SetPeer {
    fn encode(&self, text: &mut String) {
        line!(text, "public_key", hex(&self.public_key));
        if self.remove {
            text.push_str("remove=true\n");
            return;
        }
        if self.update_only {
            text.push_str("update_only=true\n");
        }
        if let Some(key) = &self.preshared_key {
            line!(text, "preshared_key", hex(key));
        }
        if let Some(endpoint) = self.endpoint {
            line!(text, "endpoint", endpoint);
        }
        if let Some(keepalive) = self.keepalive {
            line!(text, "persistent_keepalive_interval", keepalive);
        }
        if self.replace_allowed_ips {
            text.push_str("replace_allowed_ips=true\n");
        }
        for net in &self.allowed_ips {
            line!(text, "allowed_ip", net);
        }
        for net in &self.removed_ips {
            line!(text, "allowed_ip", format_args!("-{net}"));
        }
    }
}

impl Device {
    /// The answer to `get=1` with the error number and the empty line that ends it.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Some(key) = &self.private_key {
            line!(text, "private_key", hex(key));
        }
        line!(text, "listen_port", self.listen_port);
        if self.fwmark != 0 {
            line!(text, "fwmark", self.fwmark);
        }
        for (key, peer) in &self.peers {
            line!(text, "public_key", hex(key));
            if let Some(key) = &peer.preshared_key {
                line!(text, "preshared_key", hex(key));
            }
            text.push_str("protocol_version=1\n");
            if let Some(endpoint) = peer.endpoint {
                line!(text, "endpoint", endpoint);
            }
            line!(text, "last_handshake_time_sec", peer.last_handshake);
            text.push_str("last_handshake_time_nsec=0\n");
            line!(text, "tx_bytes", peer.sent_bytes);
            line!(text, "rx_bytes", peer.received_bytes);
            line!(text, "persistent_keepalive_interval", peer.keepalive);
            for net in &peer.allowed_ips {
                line!(text, "allowed_ip", net);
            }
        }
        text.push_str("errno=0\n\n");
        text
    }
}

fn hex(key: &Key) -> String {
    key.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
