//! `enforcer dns`: names of destinations for standalone mode. Answers what the objects and the state file say, follows
//! both, and forwards nothing.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use hickory_proto::rr::Name;
use hickory_server::Server;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

use crate::{
    resolve::{Before, CLUSTER_DOMAIN, Resolved, without_connections},
    source::manifests,
    state::{self, State},
    store::Snapshot,
};

mod answer;
#[cfg(test)]
mod tests;
mod zone;

pub use zone::{Addresses, Found, Zone};

/// A TCP client that asks nothing for so long is cut off.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that wait for a slow TCP client.
const TCP_BACKLOG: usize = 16;

/// What `enforcer dns` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of YAML that has the objects
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// The controller's state file [default: DIR.state.json]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// UDP and TCP address to answer on; may be given several times
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    pub listen: Vec<SocketAddr>,
    /// Domain under which the names of services are
    #[arg(long, value_name = "DOMAIN", default_value = CLUSTER_DOMAIN)]
    pub cluster_domain: String,
}

/// Runs until the process ends.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let domain = Name::from_utf8(&args.cluster_domain)
        .ok()
        .filter(|name| !name.is_root())
        .with_context(|| format!("--cluster-domain {}: expected a DNS name", args.cluster_domain))?;
    let mut sockets = Vec::new();
    for address in &args.listen {
        let udp =
            UdpSocket::bind(address).await.with_context(|| format!("cannot answer on UDP {address}"))?;
        let tcp =
            TcpListener::bind(address).await.with_context(|| format!("cannot answer on TCP {address}"))?;
        sockets.push((udp, tcp));
    }
    let path = args.state.clone().unwrap_or_else(|| state::default_path(&args.manifests));
    let zones = follow(args.manifests, path, domain.to_ascii())?;
    serve(sockets, zones).await
}

/// Answers from the latest zone on all sockets until one of them breaks.
pub async fn serve(
    sockets: Vec<(UdpSocket, TcpListener)>,
    zones: watch::Receiver<Arc<Zone>>,
) -> anyhow::Result<()> {
    let mut server = Server::new(answer::Answers { zones });
    for (udp, tcp) in sockets {
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_BACKLOG);
    }
    server.block_until_done().await.context("the DNS server has stopped")
}

fn follow(manifests: PathBuf, state: PathBuf, domain: String) -> anyhow::Result<watch::Receiver<Arc<Zone>>> {
    let accepted = manifests::Memory::Others(state::accepted_path(&state));
    let mut snapshots = manifests::watch(manifests, accepted)?;
    let mut states = state::watch_state(state);
    let mut known: Option<(Arc<Snapshot>, Arc<State>, Resolved)> = None;
    let mut zone = move || {
        let snapshot = snapshots.borrow_and_update().clone();
        let state = states.borrow_and_update().clone();
        let last = known.as_ref();
        let before = last.map(|(snapshot, state, resolved)| Before { snapshot, state, resolved });
        // Names have nothing to do with connections, of which most changes are.
        let same = state.as_ref().zip(before).is_some_and(|(state, before)| before.holds(&snapshot, state));
        if !same {
            known = state.map(|state| {
                let resolved = without_connections(&snapshot, &state);
                (snapshot, state, resolved)
            });
        }
        let resolved = known.as_ref().map(|(.., resolved)| resolved);
        (Arc::new(Zone::new(&domain, resolved)), snapshots.clone(), states.clone())
    };
    let (first, mut snapshot_changes, mut state_changes) = zone();
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = snapshot_changes.changed() => changed,
                changed = state_changes.changed() => changed,
                () = sender.closed() => return,
            };
            if let Err(error) = changed {
                tracing::error!(%error, "names are not followed any more");
                return;
            }
            let (next, snapshots, states) = zone();
            (snapshot_changes, state_changes) = (snapshots, states);
            sender.send_replace(next);
        }
    });
    Ok(receiver)
}
