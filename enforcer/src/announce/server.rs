//! The gateway's end: takes connections of known nodes, one each, and carries what they say to the gateway.
//!
//! Decides nothing about bindings. The source address says which node speaks: the tunnel ties it to the node's key.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    AnnounceError, Answer, Binding, Request, VERSION,
    codec::{self, Reader},
    socket,
};

mod outbox;

pub use outbox::Outbox;

/// Who may announce: tunnel address → name of the TunnelNode.
pub type Peers = Arc<BTreeMap<IpAddr, String>>;

#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The gateway's tunnel addresses, port 7118.
    pub addresses: Vec<SocketAddr>,
    /// The tunnel device: connections from anywhere else are not even seen. `None` for tests.
    pub device: Option<String>,
    pub gateway: String,
}

/// What happened on a connection. Events of an older session of the node than the last `Joined` can be ignored.
#[derive(Debug)]
pub enum Event {
    /// The node said `Hello`. A connection that it had before is closed.
    Joined {
        node: String,
        session: u64,
        outbox: Arc<Outbox>,
    },
    Snapshot {
        node: String,
        session: u64,
        generation: u64,
        bindings: Vec<Binding>,
    },
    Upsert {
        node: String,
        session: u64,
        binding: Binding,
    },
    Remove {
        node: String,
        session: u64,
        uid: String,
    },
    Left {
        node: String,
        session: u64,
    },
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens; tells a test its port.
    pub addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// From accept to the node's `Hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts to listen. Fails where an address cannot be bound.
pub fn spawn(
    config: &ServerConfig,
    peers: &watch::Receiver<Peers>,
    events: &mpsc::Sender<Event>,
) -> io::Result<Server> {
    let mut listeners = Vec::new();
    for address in &config.addresses {
        listeners.push(TcpListener::from_std(socket::listener(*address, config.device.as_deref())?)?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    let (greeted, greetings) = mpsc::channel(16);
    let mut tasks = vec![tokio::spawn(admit(greetings, peers.clone(), events.clone()))];
    for listener in listeners {
        let accept = Accept {
            listener,
            gateway: config.gateway.clone(),
            peers: peers.clone(),
            greeted: greeted.clone(),
        };
        tasks.push(tokio::spawn(accept.run()));
    }
    Ok(Server { addresses, tasks })
}

/// A connection of a known node, after `Hello`.
struct Greeted {
    node: String,
    address: IpAddr,
    stream: Reader<TcpStream>,
}

struct Accept {
    listener: TcpListener,
    gateway: String,
    peers: watch::Receiver<Peers>,
    greeted: mpsc::Sender<Greeted>,
}

impl Accept {
    async fn run(self) {
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: those of the sessions come back, a tight loop helps nobody.
                    warn!(%error, "cannot accept an announce connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let address = from.ip().to_canonical();
            let Some(node) = self.peers.borrow().get(&address).cloned() else {
                debug!(error = %AnnounceError::UnknownNode { address }, "announce connection refused");
                continue;
            };
            let (gateway, greeted) = (self.gateway.clone(), self.greeted.clone());
            tokio::spawn(async move {
                match timeout(HELLO_TIMEOUT, greet(stream, gateway)).await {
                    Ok(Ok(stream)) => _ = greeted.send(Greeted { node, address, stream }).await,
                    Ok(Err(error)) => warn!(node, %error, "announce connection refused"),
                    Err(_) => warn!(node, "announce connection refused: no Hello in time"),
                }
            });
        }
    }
}

async fn greet(stream: TcpStream, gateway: String) -> Result<Reader<TcpStream>, AnnounceError> {
    socket::watch_peer(&stream)
        .map_err(|source| AnnounceError::Io { action: "set the options of the socket", source })?;
    let mut stream = Reader::new(stream);
    let hello = stream.read().await?;
    // The other end learns our version even where it cannot stay.
    codec::write(stream.get_mut(), &Answer::Hello { version: VERSION, gateway }).await?;
    match hello {
        Request::Hello { version: VERSION, .. } => Ok(stream),
        Request::Hello { version, .. } => Err(AnnounceError::Version { version }),
        Request::Snapshot { .. } => Err(AnnounceError::NoHello { got: "Snapshot" }),
        Request::Upsert { .. } => Err(AnnounceError::NoHello { got: "Upsert" }),
        Request::Remove { .. } => Err(AnnounceError::NoHello { got: "Remove" }),
    }
}

/// One session per node: a newer connection ends the older one, which may be a dead agent's.
async fn admit(
    mut greetings: mpsc::Receiver<Greeted>,
    peers: watch::Receiver<Peers>,
    events: mpsc::Sender<Event>,
) {
    let mut sessions = Sessions::default();
    let mut session = 0;
    while let Some(Greeted { node, address, stream }) = greetings.recv().await {
        session += 1;
        let outbox = Arc::new(Outbox::default());
        let joined = Event::Joined { node: node.clone(), session, outbox: Arc::clone(&outbox) };
        if events.send(joined).await.is_err() {
            return;
        }
        let running = Session {
            node: node.clone(),
            number: session,
            address,
            peers: peers.clone(),
            events: events.clone(),
        };
        sessions.replace(node, tokio::spawn(running.run(stream, outbox)).abort_handle());
    }
}

#[derive(Default)]
struct Sessions(BTreeMap<String, AbortHandle>);

impl Sessions {
    fn replace(&mut self, node: String, session: AbortHandle) {
        if let Some(older) = self.0.insert(node, session) {
            older.abort();
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for session in self.0.values() {
            session.abort();
        }
    }
}

struct Session {
    node: String,
    number: u64,
    address: IpAddr,
    peers: watch::Receiver<Peers>,
    events: mpsc::Sender<Event>,
}

impl Session {
    async fn run(mut self, stream: Reader<TcpStream>, outbox: Arc<Outbox>) {
        if let Err(error) = self.talk(stream, &outbox).await {
            debug!(node = self.node, %error, "announce connection ended");
        }
        // The gateway keeps the node's bindings: a lost connection is no message about pods.
        _ = self.events.send(Event::Left { node: self.node, session: self.number }).await;
    }

    async fn talk(&mut self, stream: Reader<TcpStream>, outbox: &Outbox) -> Result<(), AnnounceError> {
        let (mut reader, mut writer) = stream.split();
        loop {
            tokio::select! {
                request = reader.read() => {
                    if self.events.send(self.event(request?)?).await.is_err() {
                        return Ok(());
                    }
                }
                answers = outbox.take() => {
                    for answer in answers {
                        codec::write(&mut writer, &answer).await?;
                    }
                }
                changed = self.peers.changed() => {
                    if changed.is_err() || self.peers.borrow().get(&self.address) != Some(&self.node) {
                        return Err(AnnounceError::UnknownNode { address: self.address });
                    }
                }
            }
        }
    }

    fn event(&self, request: Request) -> Result<Event, AnnounceError> {
        let (node, session) = (self.node.clone(), self.number);
        match request {
            Request::Snapshot { generation, bindings } => {
                Ok(Event::Snapshot { node, session, generation, bindings })
            }
            Request::Upsert { binding } => Ok(Event::Upsert { node, session, binding }),
            Request::Remove { uid } => Ok(Event::Remove { node, session, uid }),
            Request::Hello { .. } => Err(AnnounceError::NoHello { got: "a second Hello" }),
        }
    }
}
