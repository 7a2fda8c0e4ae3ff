//! Encrypted tunnels: the kernel's WireGuard, or a user-space process spoken to over the standard UAPI socket.
//!
//! One device per peer gateway on a node, one device with all nodes as peers at a gateway. Peers are diffed, never
//! rebuilt.

use std::net::SocketAddr;

use ipnet::IpNet;

/// Seconds between keepalives, on both ends: tunnel liveness counts on them.
pub const KEEPALIVE: u16 = 2;

/// A device as it should be.
#[derive(Clone, PartialEq)]
pub struct DeviceConfig {
    /// At most 15 bytes.
    pub name: String,
    pub private_key: [u8; 32],
    /// UDP port; 0: any.
    pub listen_port: u16,
    pub peers: Vec<PeerConfig>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    pub public_key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<IpNet>,
    pub keepalive: u16,
}

/// A device as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceStatus {
    pub listen_port: u16,
    pub peers: Vec<PeerStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PeerStatus {
    pub public_key: [u8; 32],
    pub endpoint: Option<SocketAddr>,
    pub allowed_ips: Vec<IpNet>,
    /// Seconds since the Unix epoch; 0: never.
    pub last_handshake: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// One way to have tunnel devices.
pub trait Tunnel: Send {
    /// `kernel` or `userspace`, for status.
    fn mode(&self) -> &'static str;

    /// Makes sure that the device exists in the tunnel netns, is up with this MTU, and returns its index there.
    fn ensure_device(&mut self, name: &str, mtu: u32) -> Result<u32, TunnelError>;

    /// Brings key, port and peers to this configuration by the smallest change.
    fn configure(&mut self, config: &DeviceConfig) -> Result<DeviceStatus, TunnelError>;

    fn remove_device(&mut self, name: &str) -> Result<(), TunnelError>;
}

#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("tunnel device {name}: cannot {action}")]
    Device {
        name: String,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
}
