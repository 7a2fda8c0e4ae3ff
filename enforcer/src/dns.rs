//! `enforcer dns`: names of Services and of destinations, after the Kubernetes DNS specification. Answers what the
//! objects say, follows them, and asks others only where it is told to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use hickory_proto::rr::Name;
use hickory_server::Server;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

use crate::{
    resolve::CLUSTER_DOMAIN,
    signals,
    source::{
        SourceArgs,
        kubernetes::{Interest, Pods, Written},
        manifests::Memory,
    },
    state,
};

mod answer;
mod book;
mod follow;
mod forward;
mod handler;
mod service;
mod shards;
#[cfg(test)]
mod tests;
mod zone;

pub use forward::Forwarder;
pub use zone::Zone;

/// A TCP client that asks nothing for so long is cut off.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow TCP client.
const TCP_BACKLOG: usize = 16;
/// Largest datagram that crosses the usual tunnels unfragmented.
const MOST_UDP: u16 = 1232;

/// What `enforcer dns` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// UDP and TCP address to answer on; may be given several times
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Domain under which the names of services are
    #[arg(long, value_name = "DOMAIN", default_value = CLUSTER_DOMAIN)]
    cluster_domain: String,
    /// Server that is asked what is not ours; may be given several times [default: nobody is]
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = forward::upstream)]
    forward: Vec<SocketAddr>,
}

/// Runs until the process ends.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let domain = Name::from_utf8(&args.cluster_domain)
        .ok()
        .filter(|name| !name.is_root())
        .with_context(|| format!("--cluster-domain {}: expected a DNS name", args.cluster_domain))?;
    if let Some(own) = forward::own_upstream(&args.forward, &args.listen) {
        anyhow::bail!("--forward {own}: leads back here, expected another server");
    }
    let mut sockets = Vec::new();
    for address in &args.listen {
        let udp =
            UdpSocket::bind(address).await.with_context(|| format!("cannot answer on UDP {address}"))?;
        let tcp =
            TcpListener::bind(address).await.with_context(|| format!("cannot answer on TCP {address}"))?;
        sockets.push((udp, tcp));
    }
    let accepted = args.source.state_path().map(|path| state::accepted_path(&path)).unwrap_or_default();
    let interest = Interest { pods: Pods::None, only_services: true, written: Written::Nothing };
    let followed = args.source.follow(Memory::Others(accepted), &interest).await?;
    let zones = follow::follow(followed, &domain.to_ascii());
    if !zones.borrow().is_ready() {
        tracing::info!("not every name is known yet: questions for names of the cluster fail until then");
    }
    // The first process of a container is ended by no signal that it does not wait for.
    let stop = signals::told_to_end()?;
    tokio::select! {
        () = stop => Ok(()),
        ended = serve(sockets, zones, Forwarder::new(args.forward)) => ended,
    }
}

/// Answers from the latest zone on all sockets until one of them breaks.
async fn serve(
    sockets: Vec<(UdpSocket, TcpListener)>,
    zones: watch::Receiver<Arc<Zone>>,
    forwarder: Option<Forwarder>,
) -> anyhow::Result<()> {
    let mut server = Server::new(handler::Handler { zones, forwarder });
    for (udp, tcp) in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
    }
    server.block_until_done().await.context("the DNS server has stopped")
}
