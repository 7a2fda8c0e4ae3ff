//! Real questions over UDP and TCP on loopback.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

use super::{Zone, serve};
use crate::{
    model::{Kind, ObjectKey},
    resolve::{Destination, Resolved},
};

const V4: &str = "198.18.0.7";
const V6: &str = "fd00:1:2:2::7";

/// `both` has two families, `four` only IPv4.
fn zone() -> Zone {
    let destination = |name: &str, has_v6: bool| {
        let key = ObjectKey::new(Kind::Postgres, "shop", name);
        let destination = Destination {
            key: key.clone(),
            number: 7,
            v4: V4.parse().ok(),
            v6: V6.parse().ok().filter(|_| has_v6),
            ports: Vec::new(),
            gateways: Vec::new(),
            endpoints: Vec::new(),
            fqdn: String::new(),
        };
        (key, Arc::new(destination))
    };
    let destinations = [destination("both", true), destination("four", false)].into();
    Zone::new("cluster.local", Some(&Resolved { destinations, ..Resolved::default() }))
}

async fn server(zone: Zone) -> (SocketAddr, watch::Sender<Arc<Zone>>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a TCP port on loopback");
    let address = tcp.local_addr().expect("its address");
    let udp = UdpSocket::bind(address).await.expect("the same UDP port");
    let (sender, zones) = watch::channel(Arc::new(zone));
    tokio::spawn(serve(vec![(udp, tcp)], zones));
    (address, sender)
}

fn question(name: &str, kind: RecordType, class: DNSClass) -> Message {
    let mut query = Query::query(Name::from_ascii(name).expect("a name"), kind);
    query.set_query_class(class);
    let mut message = Message::query();
    message.add_query(query);
    message
}

async fn over_udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port on loopback");
    socket.send_to(&message.to_vec().expect("a message"), server).await.expect("a question");
    let mut answer = [0; 1500];
    let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut answer)).await;
    let length = received.expect("an answer in time").expect("an answer");
    Message::from_vec(&answer[..length]).expect("a message")
}

async fn over_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.expect("a connection");
    let bytes = message.to_vec().expect("a message");
    stream.write_u16(bytes.len() as u16).await.expect("a length");
    stream.write_all(&bytes).await.expect("a question");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
    stream.read_exact(&mut answer).await.expect("an answer");
    Message::from_vec(&answer).expect("a message")
}

/// Code, addresses in the answer, and whether a SOA says how long its absence holds.
fn told(message: &Message) -> (ResponseCode, Vec<IpAddr>, bool) {
    let addresses = message.answers.iter().filter_map(|record| {
        assert_eq!(record.ttl, 5);
        match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        }
    });
    let soa = message.authorities.iter().any(|record| record.record_type() == RecordType::SOA);
    (message.metadata.response_code, addresses.collect(), soa)
}

#[tokio::test]
async fn names_of_services_are_answered_and_nothing_else_is() {
    use ResponseCode::{NXDomain, NoError, Refused};
    let (server, _zones) = server(zone()).await;
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let both = "postgres-both.shop.svc.cluster.local.";
    let four = "postgres-four.shop.svc.cluster.local.";
    let table = [
        (both, RecordType::A, (NoError, vec![address(V4)], false)),
        (both, RecordType::AAAA, (NoError, vec![address(V6)], false)),
        (four, RecordType::A, (NoError, vec![address(V4)], false)),
        (four, RecordType::AAAA, (NoError, vec![], true)),
        (both, RecordType::MX, (NoError, vec![], true)),
        ("shop.svc.cluster.local.", RecordType::A, (NoError, vec![], true)),
        ("cluster.local.", RecordType::A, (NoError, vec![], true)),
        ("cluster.local.", RecordType::SOA, (NoError, vec![], false)),
        ("both.shop.svc.cluster.local.", RecordType::A, (NXDomain, vec![], true)),
        (
            "postgres-both.shop.svc.cluster.local.shop.svc.cluster.local.",
            RecordType::A,
            (NXDomain, vec![], true),
        ),
        ("example.org.", RecordType::A, (Refused, vec![], false)),
        ("7.0.18.198.in-addr.arpa.", RecordType::PTR, (Refused, vec![], false)),
    ];
    for (name, kind, expected) in table {
        let message = question(name, kind, DNSClass::IN);
        assert_eq!(told(&over_udp(server, &message).await), expected, "{name} {kind} over UDP");
        assert_eq!(told(&over_tcp(server, &message).await), expected, "{name} {kind} over TCP");
    }
}

#[tokio::test]
async fn a_name_comes_back_in_the_case_in_which_it_was_asked() {
    let (server, _zones) = server(zone()).await;
    let name = "PostGres-Both.Shop.svc.Cluster.LOCAL.";
    let answer = over_udp(server, &question(name, RecordType::A, DNSClass::IN)).await;
    let names: Vec<String> = answer.answers.iter().map(|record| record.name.to_ascii()).collect();
    assert_eq!(names, [name]);
    assert!(answer.metadata.authoritative);
}

#[tokio::test]
async fn strange_questions_are_refused() {
    let (server, _zones) = server(zone()).await;
    let name = "postgres-both.shop.svc.cluster.local.";
    let chaos = question(name, RecordType::A, DNSClass::CH);
    assert_eq!(told(&over_udp(server, &chaos).await).0, ResponseCode::Refused);
    let mut notify = question(name, RecordType::A, DNSClass::IN);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(told(&over_udp(server, &notify).await).0, ResponseCode::NotImp);
}

#[tokio::test]
async fn a_new_zone_is_answered_from_at_once() {
    let (server, zones) = server(Zone::new("cluster.local", None)).await;
    let message = question("postgres-both.shop.svc.cluster.local.", RecordType::A, DNSClass::IN);
    assert_eq!(told(&over_udp(server, &message).await).0, ResponseCode::ServFail);
    zones.send_replace(Arc::new(zone()));
    assert_eq!(told(&over_udp(server, &message).await).1, [V4.parse::<IpAddr>().expect("an address")]);
}
