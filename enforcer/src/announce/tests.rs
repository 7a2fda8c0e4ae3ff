//! Both ends over real TCP on the loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
};

use super::{
    Answer, Binding, LiveGrant, Request, VERSION,
    client::{self, AckUpdate, Bindings, ClientConfig},
    codec::{self, MAX_FRAME, Reader},
    server::{self, Event, Outbox, Peers, Server, ServerConfig},
};
use crate::model::Protocol;

const NODE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Gateway {
    server: Server,
    peers: watch::Sender<Peers>,
    events: mpsc::Receiver<Event>,
}

impl Gateway {
    fn start() -> Self {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn listen(address: SocketAddr) -> Self {
        let (peers, known) = watch::channel(Arc::new(BTreeMap::from([(NODE.into(), "node-1".to_owned())])));
        let (said, events) = mpsc::channel(8);
        let config = ServerConfig { addresses: vec![address], device: None, gateway: "eu-1".into() };
        Self { server: server::spawn(&config, &known, &said).unwrap(), peers, events }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses[0]
    }

    async fn event(&mut self) -> Event {
        self.events.recv().await.unwrap()
    }

    async fn joined(&mut self) -> (u64, Arc<Outbox>) {
        match self.event().await {
            Event::Joined { node, session, outbox } if node == "node-1" => (session, outbox),
            other => panic!("Joined expected, got {other:?}"),
        }
    }

    async fn snapshot(&mut self) -> Vec<String> {
        match self.event().await {
            Event::Snapshot { bindings, .. } => bindings.into_iter().map(|binding| binding.uid).collect(),
            other => panic!("Snapshot expected, got {other:?}"),
        }
    }

    async fn left(&mut self) -> u64 {
        match self.event().await {
            Event::Left { session, .. } => session,
            other => panic!("Left expected, got {other:?}"),
        }
    }
}

struct Node {
    bindings: watch::Sender<Bindings>,
    acks: mpsc::Receiver<AckUpdate>,
}

impl Node {
    fn start(gateway: SocketAddr, uids: &[&str]) -> Self {
        let (bindings, announced) = watch::channel(of(uids));
        let (told, acks) = mpsc::channel(8);
        let mut config = ClientConfig::new(None, NODE.into(), gateway.ip(), "eu-1".into(), "node-1".into());
        config.port = gateway.port();
        drop(client::spawn(config, announced, told));
        Self { bindings, acks }
    }

    async fn ack(&mut self) -> AckUpdate {
        self.acks.recv().await.unwrap()
    }
}

fn of(uids: &[&str]) -> Bindings {
    let binding = |uid: &str| Arc::new(Binding { uid: uid.into(), generation: 1, ..Binding::default() });
    Arc::new(uids.iter().map(|uid| ((*uid).to_owned(), binding(uid))).collect())
}

fn connected() -> AckUpdate {
    AckUpdate::Connected { gateway: "eu-1".into() }
}

fn lost() -> AckUpdate {
    AckUpdate::Lost { gateway: "eu-1".into() }
}

/// A connection made by hand, from the node's address.
async fn dial(gateway: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(gateway).await.unwrap()
}

async fn closes(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A reset is an end as well.
    _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn bindings_go_over_and_acknowledgements_come_back() {
    let mut gateway = Gateway::start();
    let mut node = Node::start(gateway.address(), &["a", "b"]);
    let (_, outbox) = gateway.joined().await;
    assert_eq!(gateway.snapshot().await, ["a", "b"]);
    assert_eq!(node.ack().await, connected());

    let grants = BTreeSet::from([LiveGrant {
        service: "198.18.0.7".parse::<IpAddr>().unwrap(),
        protocol: Protocol::Tcp,
        port: 1,
    }]);
    outbox.put("a", Answer::Live { uid: "a".into(), generation: 1, grants: grants.clone() });
    let live = AckUpdate::Live { gateway: "eu-1".into(), uid: "a".into(), generation: 1, grants };
    assert_eq!(node.ack().await, live);

    node.bindings.send(of(&["a", "c"])).unwrap();
    assert!(matches!(gateway.event().await, Event::Remove { uid, .. } if uid == "b"));
    assert!(matches!(gateway.event().await, Event::Upsert { binding, .. } if binding.uid == "c"));
    outbox.put("b", Answer::Released { uid: "b".into() });
    assert_eq!(node.ack().await, AckUpdate::Released { gateway: "eu-1".into(), uid: "b".into() });
}

#[tokio::test]
async fn a_reconnect_brings_everything_again_and_asks_for_what_was_not_released() {
    let mut gateway = Gateway::start();
    let address = gateway.address();
    let mut node = Node::start(address, &["a", "b"]);
    gateway.joined().await;
    gateway.snapshot().await;
    assert_eq!(node.ack().await, connected());
    drop(gateway);
    assert_eq!(node.ack().await, lost());
    node.bindings.send(of(&["a"])).unwrap();

    let mut gateway = Gateway::listen(address);
    let (_, outbox) = gateway.joined().await;
    assert_eq!(gateway.snapshot().await, ["a"]);
    assert!(matches!(gateway.event().await, Event::Remove { uid, .. } if uid == "b"));
    assert_eq!(node.ack().await, connected());
    outbox.put("b", Answer::Released { uid: "b".into() });
    assert_eq!(node.ack().await, AckUpdate::Released { gateway: "eu-1".into(), uid: "b".into() });
}

#[tokio::test]
async fn foreign_addresses_are_not_heard() {
    let mut gateway = Gateway::start();
    let mut stream = dial(gateway.address(), Ipv4Addr::new(127, 0, 0, 9)).await;
    _ = codec::write(&mut stream, &Request::Hello { version: VERSION, node: "node-1".into() }).await;
    assert_eq!(closes(stream).await, b"");
    let known = dial(gateway.address(), NODE).await;
    let mut known = Reader::new(known);
    codec::write(known.get_mut(), &Request::Hello { version: VERSION, node: "x".into() }).await.unwrap();
    assert_eq!(gateway.joined().await.0, 1, "the first that is heard is the known node");
}

#[tokio::test]
async fn another_version_is_told_ours_and_turned_away() {
    let gateway = Gateway::start();
    let mut stream = dial(gateway.address(), NODE).await;
    codec::write(&mut stream, &Request::Hello { version: 2, node: "node-1".into() }).await.unwrap();
    let hello = codec::encode(&Answer::Hello { version: VERSION, gateway: "eu-1".into() }).unwrap();
    assert_eq!(closes(stream).await, hello);
}

#[tokio::test]
async fn an_oversized_frame_ends_the_connection() {
    let mut gateway = Gateway::start();
    let mut stream = dial(gateway.address(), NODE).await;
    codec::write(&mut stream, &Request::Hello { version: VERSION, node: "node-1".into() }).await.unwrap();
    let (session, _) = gateway.joined().await;
    stream.write_all(&(MAX_FRAME as u32 + 1).to_be_bytes()).await.unwrap();
    assert_eq!(gateway.left().await, session);
}

#[tokio::test]
async fn the_newest_connection_of_a_node_wins() {
    let mut gateway = Gateway::start();
    let mut first = dial(gateway.address(), NODE).await;
    codec::write(&mut first, &Request::Hello { version: VERSION, node: "node-1".into() }).await.unwrap();
    assert_eq!(gateway.joined().await.0, 1);
    let mut second = dial(gateway.address(), NODE).await;
    codec::write(&mut second, &Request::Hello { version: VERSION, node: "node-1".into() }).await.unwrap();
    assert_eq!(gateway.joined().await.0, 2);
    let hello = codec::encode(&Answer::Hello { version: VERSION, gateway: "eu-1".into() }).unwrap();
    assert_eq!(closes(first).await, hello, "the older one ends");
    codec::write(&mut second, &Request::Remove { uid: "a".into() }).await.unwrap();
    assert!(matches!(gateway.event().await, Event::Remove { session: 2, uid, .. } if uid == "a"));
}

#[tokio::test]
async fn a_node_that_is_no_longer_known_is_turned_out() {
    let mut gateway = Gateway::start();
    let mut node = Node::start(gateway.address(), &[]);
    let (session, _) = gateway.joined().await;
    gateway.snapshot().await;
    assert_eq!(node.ack().await, connected());
    gateway.peers.send(Peers::default()).unwrap();
    assert_eq!(gateway.left().await, session);
    assert_eq!(node.ack().await, lost());
}

#[tokio::test]
async fn a_gateway_of_another_version_is_left_alone() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut node = Node::start(listener.local_addr().unwrap(), &["a"]);
    for version in [2, VERSION] {
        let mut stream = Reader::new(listener.accept().await.unwrap().0);
        assert_eq!(
            stream.read::<Request>().await.unwrap(),
            Request::Hello { version: 1, node: "node-1".into() }
        );
        codec::write(stream.get_mut(), &Answer::Hello { version, gateway: "eu-1".into() }).await.unwrap();
        if version == VERSION {
            assert!(matches!(
                stream.read::<Request>().await.unwrap(),
                Request::Snapshot { generation: 1, .. }
            ));
        } else {
            assert!(stream.read::<Request>().await.is_err(), "it closes without a snapshot");
        }
    }
    assert_eq!(node.ack().await, connected());
}
