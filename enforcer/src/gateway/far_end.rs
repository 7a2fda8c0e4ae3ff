//! The tunnel device with all nodes as peers. Its peers are set only after the programs are on it.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    resolve::{Gateway, Node, Resolved},
    tunnel::{self, DeviceConfig, DeviceStatus, KEEPALIVE, Mode, PeerConfig, Tunnel, TunnelError, blocking},
};

/// Peers are compared with what the device has this often: a tunnel process that was restarted is noticed, and
/// handshakes are in status.
const INTERVAL: Duration = Duration::from_secs(2);

/// The device; its calls block, so they run where blocking is allowed.
#[derive(Clone)]
pub struct FarEnd {
    tunnel: Arc<Mutex<Box<dyn Tunnel>>>,
}

/// What the device was found like last.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub status: DeviceStatus,
    /// Why it could not be configured.
    pub error: Option<String>,
}

impl FarEnd {
    pub async fn open(mode: Mode, run_dir: PathBuf) -> Result<Self, TunnelError> {
        let tunnel = blocking("", move || tunnel::open(mode, &run_dir, None)).await?;
        Ok(Self { tunnel: Arc::new(Mutex::new(tunnel)) })
    }

    pub fn mode(&self) -> &'static str {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).mode()
    }

    /// Makes sure of the device and returns its index.
    pub async fn ensure(&self, name: &str, mtu: u32) -> Result<u32, TunnelError> {
        let (tunnel, device) = (Arc::clone(&self.tunnel), name.to_owned());
        blocking(name, move || {
            tunnel.lock().unwrap_or_else(PoisonError::into_inner).ensure_device(&device, mtu)
        })
        .await
    }

    /// Keeps the device as wanted until nobody wants anything any more.
    pub async fn keep(
        self,
        mut wanted: watch::Receiver<Option<DeviceConfig>>,
        health: watch::Sender<Health>,
    ) {
        let mut last_error = None;
        loop {
            let config = wanted.borrow_and_update().clone();
            if let Some(config) = config {
                let tunnel = Arc::clone(&self.tunnel);
                let name = config.name.clone();
                let configured = blocking(&name, move || {
                    tunnel.lock().unwrap_or_else(PoisonError::into_inner).configure(&config)
                })
                .await;
                let error = configured.as_ref().err().map(chain);
                if error != last_error
                    && let Some(error) = &error
                {
                    warn!(error, "the tunnel device cannot be configured");
                }
                last_error.clone_from(&error);
                health.send_modify(|health| {
                    health.error = error;
                    if let Ok(status) = configured {
                        health.status = status;
                    }
                });
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }
}

/// An error with its causes in one line.
pub fn chain(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// The device as it should be. What a node may send is tied to its key by the allowed IPs.
pub fn config(
    name: &str,
    private_key: [u8; 32],
    gateway: &Gateway,
    resolved: &Resolved,
    port: Option<u16>,
) -> DeviceConfig {
    let endpoint = gateway.endpoints.first().map(std::net::SocketAddr::port);
    DeviceConfig {
        name: name.to_owned(),
        private_key,
        listen_port: port.or(endpoint).unwrap_or(0),
        peers: resolved.nodes.values().map(peer).collect(),
    }
}

fn peer(node: &Node) -> PeerConfig {
    let own = [IpAddr::V4(node.v4).into(), IpAddr::V6(node.v6).into()];
    let blocks = node.blocks.iter().map(|block| IpNet::V4(*block));
    PeerConfig {
        public_key: node.public_key,
        // Nodes come to the gateway: it learns where they are from what they send.
        endpoint: None,
        allowed_ips: own.into_iter().chain(blocks).chain([IpNet::V6(node.subnet)]).collect(),
        keepalive: KEEPALIVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_send_from_its_own_addresses_and_blocks_only() {
        let node = Node {
            name: "n".into(),
            number: 1,
            v4: [198, 19, 0, 1].into(),
            v6: "fd00:0:0:1000::1".parse().unwrap(),
            blocks: vec!["198.19.0.0/26".parse().unwrap()],
            subnet: "fd00:0:0:1000::/64".parse().unwrap(),
            public_key: [7; 32],
            cluster: "c".into(),
        };
        let allowed = ["198.19.0.1/32", "fd00:0:0:1000::1/128", "198.19.0.0/26", "fd00:0:0:1000::/64"];
        let expected = PeerConfig {
            public_key: [7; 32],
            endpoint: None,
            allowed_ips: allowed.map(|prefix| prefix.parse().unwrap()).into(),
            keepalive: 2,
        };
        assert_eq!(peer(&node), expected);
    }
}
