//! Real questions over UDP and TCP on loopback.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

use super::{resolved, zone};
use crate::dns::{Forwarder, Zone, serve};

pub(super) async fn server(
    zone: Arc<Zone>,
    forwarder: Option<Forwarder>,
) -> (SocketAddr, watch::Sender<Arc<Zone>>) {
    let (udp, tcp) = sockets().await;
    let address = tcp.local_addr().expect("its address");
    let (sender, zones) = watch::channel(zone);
    tokio::spawn(serve(vec![(udp, tcp)], zones, forwarder));
    (address, sender)
}

/// A port of loopback over UDP and TCP. One that is free over one may be taken over the other.
pub(super) async fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a TCP port on loopback");
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().expect("its address")).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free over both");
}

pub(super) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

pub(super) async fn over_udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port on loopback");
    socket.send_to(&message.to_vec().expect("a message"), server).await.expect("a question");
    let mut answer = [0; 1500];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut answer)).await;
    let length = received.expect("an answer in time").expect("an answer");
    Message::from_vec(&answer[..length]).expect("a message")
}

pub(super) async fn over_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("a connection");
    let bytes = message.to_vec().expect("a message");
    stream.write_u16(bytes.len() as u16).await.expect("a length");
    stream.write_all(&bytes).await.expect("a question");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("a message")
}

/// Code, flags, and the number of records in each section.
fn shape(message: &Message) -> String {
    let flags = message.metadata;
    let mut text = format!("{:?}", flags.response_code);
    let flags = [
        (flags.authoritative, "aa"),
        (flags.truncation, "tc"),
        (flags.recursion_desired, "rd"),
        (flags.recursion_available, "ra"),
    ];
    for (_, flag) in flags.into_iter().filter(|(is_set, _)| *is_set) {
        write!(text, " {flag}").expect("a text");
    }
    write!(text, " {}/{}/{}", message.answers.len(), message.authorities.len(), message.additionals.len())
        .expect("a text");
    text
}

/// A Service with so many endpoints.
fn crowd(endpoints: usize) -> Arc<Zone> {
    let list: Vec<String> = (0..endpoints)
        .map(|number| format!("{{addresses: [10.1.{}.{}]}}", number / 250, number % 250))
        .collect();
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\nspec: {{clusterIP: None}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: db-1, namespace: shop, labels: {{kubernetes.io/service-name: db}}}}\n\
         addressType: IPv4\nports: [{{name: pg, port: 5432}}]\nendpoints: [{}]\n",
        list.join(", ")
    );
    zone(&text, &resolved(&[("orders", Some("198.18.0.7"), None)]))
}

#[tokio::test]
async fn both_transports_say_the_same() {
    let (server, _zones) = server(crowd(2), None).await;
    let table = [
        ("postgres-orders.shop.svc.cluster.local.", RecordType::A, "NoError aa 1/0/0"),
        ("postgres-orders.shop.svc.cluster.local.", RecordType::AAAA, "NoError aa 0/1/0"),
        ("db.shop.svc.cluster.local.", RecordType::A, "NoError aa 2/0/0"),
        ("_pg._tcp.db.shop.svc.cluster.local.", RecordType::SRV, "NoError aa 2/0/2"),
        ("no.shop.svc.cluster.local.", RecordType::A, "NXDomain aa 0/1/0"),
        ("7.0.18.198.in-addr.arpa.", RecordType::PTR, "NoError aa 1/0/0"),
        ("8.0.18.198.in-addr.arpa.", RecordType::PTR, "Refused 0/0/0"),
        ("example.org.", RecordType::A, "Refused 0/0/0"),
        ("cluster.local.", RecordType::AXFR, "Refused 0/0/0"),
        ("cluster.local.", RecordType::IXFR, "Refused 0/0/0"),
    ];
    for (name, kind, expected) in table {
        let message = question(name, kind);
        for answer in [over_udp(server, &message).await, over_tcp(server, &message).await] {
            assert_eq!(shape(&answer), expected, "{name} {kind}");
            assert_eq!(answer.queries, message.queries);
            assert!(answer.edns.is_none(), "nobody asked with EDNS");
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_over_tcp() {
    let (server, _zones) = server(crowd(200), None).await;
    let mut message = question("db.shop.svc.cluster.local.", RecordType::A);
    let short = over_udp(server, &message).await;
    assert!(
        short.metadata.truncation && short.to_vec().expect("a message").len() <= 512,
        "{}",
        shape(&short)
    );
    message.edns.get_or_insert_with(Edns::new).set_max_payload(4096);
    let longer = over_udp(server, &message).await;
    // No more than crosses the usual tunnels, whatever the client can take.
    assert!(longer.metadata.truncation && longer.answers.len() > short.answers.len(), "{}", shape(&longer));
    assert!(longer.to_vec().expect("a message").len() <= 1232);
    assert_eq!(shape(&over_tcp(server, &message).await), "NoError aa 200/0/0");
}

#[tokio::test]
async fn strange_questions_are_refused() {
    let (server, _zones) = server(crowd(1), None).await;
    let name = "db.shop.svc.cluster.local.";
    let mut table = [(); 4].map(|()| question(name, RecordType::A));
    table[0].queries[0].set_query_class(DNSClass::CH);
    table[1].metadata.op_code = OpCode::Notify;
    let second = table[2].queries[0].clone();
    table[2].add_query(second);
    table[3].edns.get_or_insert_with(Edns::new).set_version(1);
    // Sixteen has two names, and it is the other one that is read.
    let codes = [ResponseCode::Refused, ResponseCode::NotImp, ResponseCode::FormErr, ResponseCode::BADSIG];
    for (message, code) in table.iter().zip(codes) {
        assert_eq!(over_udp(server, message).await.metadata.response_code, code, "{message}");
    }
    // A response is no question: two servers would go on for ever.
    let mut reflected = question(name, RecordType::A);
    reflected.metadata.message_type = MessageType::Response;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port on loopback");
    socket.send_to(&reflected.to_vec().expect("a message"), server).await.expect("a datagram");
    let real = question(name, RecordType::A);
    socket.send_to(&real.to_vec().expect("a message"), server).await.expect("a question");
    let mut answer = [0; 1500];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut answer)).await;
    received.expect("an answer in time").expect("an answer");
    assert_eq!(answer[..2], real.metadata.id.to_be_bytes());
}

#[tokio::test]
async fn a_new_zone_is_answered_from_at_once() {
    let (server, zones) = server(Arc::new(Zone::unready("cluster.local")), None).await;
    let message = question("db.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(over_udp(server, &message).await.metadata.response_code, ResponseCode::ServFail);
    zones.send_replace(crowd(1));
    assert_eq!(shape(&over_udp(server, &message).await), "NoError aa 1/0/0");
}

#[tokio::test]
async fn the_first_of_several_addresses_is_not_always_the_same() {
    let (server, _zones) = server(crowd(3), None).await;
    let mut first = std::collections::BTreeSet::new();
    for id in 0..3 {
        let mut message = question("db.shop.svc.cluster.local.", RecordType::A);
        message.metadata.id = id;
        first.insert(over_udp(server, &message).await.answers[0].data.to_string());
    }
    assert_eq!(first.into_iter().collect::<Vec<_>>(), ["10.1.0.0", "10.1.0.1", "10.1.0.2"]);
}
