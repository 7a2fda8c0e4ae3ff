//! The agent's end: keeps one gateway told of the node's bindings, and hands its answers on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use enforcer_common::config::ANNOUNCE_PORT;
use tokio::{
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    AnnounceError, Answer, Binding, LiveGrant, Request, VERSION,
    codec::{self, Reader},
    socket,
};

/// All bindings of the node by uid, as they should be announced.
pub type Bindings = Arc<BTreeMap<String, Arc<Binding>>>;

#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Path of the tunnel netns; `None`: the own one.
    pub netns: Option<PathBuf>,
    /// The node's tunnel address, of the same family as `gateway_address`.
    pub node_address: IpAddr,
    pub gateway_address: IpAddr,
    /// [`ANNOUNCE_PORT`], but for tests.
    pub port: u16,
    /// Name of the TunnelGateway, repeated in every [`AckUpdate`].
    pub gateway: String,
    /// Name of the TunnelNode.
    pub node: String,
}

impl ClientConfig {
    pub const fn new(
        netns: Option<PathBuf>,
        node_address: IpAddr,
        gateway_address: IpAddr,
        gateway: String,
        node: String,
    ) -> Self {
        Self { netns, node_address, gateway_address, port: ANNOUNCE_PORT, gateway, node }
    }
}

/// What a gateway said. While a connection is lost the gateway keeps its bindings, so that what was live stays live.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AckUpdate {
    /// The snapshot is on its way. `Live` for every binding follows.
    Connected {
        gateway: String,
    },
    /// The gateway's kernel holds exactly these grants for the binding of this generation.
    Live {
        gateway: String,
        uid: String,
        generation: u64,
        grants: BTreeSet<LiveGrant>,
    },
    /// No flow of the binding is left at the gateway; its addresses are free there.
    Released {
        gateway: String,
        uid: String,
    },
    Lost {
        gateway: String,
    },
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// From connect to the gateway's `Hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Keeps the connection until the sender of the bindings or the receiver of the answers is dropped, or the task is
/// aborted.
pub fn spawn(
    config: ClientConfig,
    bindings: watch::Receiver<Bindings>,
    acks: mpsc::Sender<AckUpdate>,
) -> JoinHandle<()> {
    let client = Client {
        config,
        bindings,
        acks,
        announced: Bindings::default(),
        leaving: BTreeSet::new(),
        snapshots: 0,
    };
    tokio::spawn(client.run())
}

struct Client {
    config: ClientConfig,
    bindings: watch::Receiver<Bindings>,
    acks: mpsc::Sender<AckUpdate>,
    /// What the gateway was told last.
    announced: Bindings,
    /// Removed, and `Released` has not come: asked for again after a reconnect.
    leaving: BTreeSet<String>,
    snapshots: u64,
}

/// Why a session ended.
enum End {
    /// Nobody is interested any more.
    Finished,
    Failed(AnnounceError),
}

impl From<AnnounceError> for End {
    fn from(error: AnnounceError) -> Self {
        Self::Failed(error)
    }
}

impl Client {
    async fn run(mut self) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = sleep(wait) => {}
                () = self.acks.closed() => return,
            }
            match self.connect().await {
                Ok((reader, writer)) => {
                    wait = Duration::ZERO;
                    info!(gateway = self.config.gateway, "announce connection is up");
                    match self.session(reader, writer).await {
                        Ok(()) | Err(End::Finished) => return,
                        Err(End::Failed(error)) => {
                            warn!(
                                gateway = self.config.gateway,
                                error = error_chain(&error),
                                "announce connection lost"
                            );
                        }
                    }
                    if self.acks.send(AckUpdate::Lost { gateway: self.gateway() }).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    debug!(
                        gateway = self.config.gateway,
                        error = error_chain(&error),
                        "no announce connection"
                    );
                    wait = (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
                }
            }
        }
    }

    fn gateway(&self) -> String {
        self.config.gateway.clone()
    }

    async fn connect(&self) -> Result<(Reader<OwnedReadHalf>, OwnedWriteHalf), AnnounceError> {
        let netns = self.config.netns.clone();
        let address = self.config.node_address;
        let io = |action| move |source| AnnounceError::Io { action, source };
        let socket = tokio::task::spawn_blocking(move || socket::client(netns.as_deref(), address))
            .await
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(io("make a socket in the tunnel netns"))?;
        let gateway = SocketAddr::new(self.config.gateway_address, self.config.port);
        let connecting = TcpSocket::from_std_stream(socket).connect(gateway);
        let stream = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| AnnounceError::Silent { seconds: CONNECT_TIMEOUT.as_secs() })?
            .map_err(io("connect"))?;
        timeout(HELLO_TIMEOUT, self.greet(stream))
            .await
            .map_err(|_| AnnounceError::Silent { seconds: HELLO_TIMEOUT.as_secs() })?
    }

    async fn greet(
        &self,
        stream: TcpStream,
    ) -> Result<(Reader<OwnedReadHalf>, OwnedWriteHalf), AnnounceError> {
        let (reader, mut writer) = stream.into_split();
        codec::write(&mut writer, &Request::Hello { version: VERSION, node: self.config.node.clone() })
            .await?;
        let mut reader = Reader::new(reader);
        match reader.read().await? {
            Answer::Hello { version: VERSION, .. } => Ok((reader, writer)),
            Answer::Hello { version, .. } => Err(AnnounceError::Version { version }),
            Answer::Live { .. } => Err(AnnounceError::NoHello { got: "Live" }),
            Answer::Released { .. } => Err(AnnounceError::NoHello { got: "Released" }),
            Answer::Refused { .. } => Err(AnnounceError::NoHello { got: "Refused" }),
        }
    }

    async fn session(
        &mut self,
        mut reader: Reader<OwnedReadHalf>,
        mut writer: OwnedWriteHalf,
    ) -> Result<(), End> {
        self.tell(AckUpdate::Connected { gateway: self.gateway() }).await?;
        for request in self.opening() {
            codec::write(&mut writer, &request).await?;
        }
        loop {
            tokio::select! {
                changed = self.bindings.changed() => {
                    changed.map_err(|_| End::Finished)?;
                    for request in self.changes() {
                        codec::write(&mut writer, &request).await?;
                    }
                }
                answer = reader.read() => self.answered(answer?).await?,
                () = self.acks.closed() => return Err(End::Finished),
            }
        }
    }

    /// The snapshot, and once more what has not been released.
    fn opening(&mut self) -> Vec<Request> {
        let next = Arc::clone(&self.bindings.borrow_and_update());
        self.note_removals(&next);
        self.announced = next;
        self.snapshots += 1;
        let bindings = self.announced.values().map(|binding| Binding::clone(binding)).collect();
        let snapshot = Request::Snapshot { generation: self.snapshots, bindings };
        std::iter::once(snapshot)
            .chain(self.leaving.iter().map(|uid| Request::Remove { uid: uid.clone() }))
            .collect()
    }

    /// From what was announced to what should be; removals first, because their addresses may be in use again.
    fn changes(&mut self) -> Vec<Request> {
        let next = Arc::clone(&self.bindings.borrow_and_update());
        self.note_removals(&next);
        let requests = diff(&self.announced, &next);
        self.announced = next;
        requests
    }

    fn note_removals(&mut self, next: &BTreeMap<String, Arc<Binding>>) {
        let removed = self.announced.keys().filter(|uid| !next.contains_key(*uid)).cloned();
        self.leaving.extend(removed);
        self.leaving.retain(|uid| !next.contains_key(uid));
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), End> {
        let gateway = self.gateway();
        match answer {
            Answer::Live { uid, generation, grants } => {
                self.tell(AckUpdate::Live { gateway, uid, generation, grants }).await
            }
            Answer::Released { uid } => {
                self.leaving.remove(&uid);
                self.tell(AckUpdate::Released { gateway, uid }).await
            }
            Answer::Refused { uid, generation, message } => {
                warn!(gateway, uid, reason = message, "the gateway refused a binding");
                self.tell(AckUpdate::Live { gateway, uid, generation, grants: BTreeSet::new() }).await
            }
            Answer::Hello { .. } => Ok(()),
        }
    }

    async fn tell(&self, update: AckUpdate) -> Result<(), End> {
        self.acks.send(update).await.map_err(|_| End::Finished)
    }
}

fn diff(before: &BTreeMap<String, Arc<Binding>>, after: &BTreeMap<String, Arc<Binding>>) -> Vec<Request> {
    let removed = before.keys().filter(|uid| !after.contains_key(*uid));
    let changed = after.iter().filter(|(uid, binding)| before.get(*uid) != Some(binding));
    removed
        .map(|uid| Request::Remove { uid: uid.clone() })
        .chain(changed.map(|(_, binding)| Request::Upsert { binding: Binding::clone(binding) }))
        .collect()
}

fn error_chain(error: &AnnounceError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(generations: &[(&str, u64)]) -> BTreeMap<String, Arc<Binding>> {
        let binding =
            |uid: &str, generation| Arc::new(Binding { uid: uid.into(), generation, ..Binding::default() });
        generations.iter().map(|(uid, generation)| ((*uid).to_owned(), binding(uid, *generation))).collect()
    }

    #[test]
    fn only_what_differs_is_told_and_removals_come_first() {
        let before = bindings(&[("gone", 1), ("same", 1), ("changed", 1)]);
        let after = bindings(&[("same", 1), ("changed", 2), ("added", 1)]);
        assert_eq!(
            diff(&before, &after),
            [
                Request::Remove { uid: "gone".into() },
                Request::Upsert { binding: Binding::clone(&after["added"]) },
                Request::Upsert { binding: Binding::clone(&after["changed"]) },
            ]
        );
        assert_eq!(diff(&after, &after), []);
    }
}
