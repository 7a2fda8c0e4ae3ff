//! Other servers are asked for what is not ours, and for nothing else.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UdpSocket,
};

use super::{
    resolved,
    wire::{over_tcp, over_udp, question, server, sockets},
    zone,
};
use crate::dns::{
    Forwarder,
    forward::{own_upstream, upstream},
};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: ExternalName, externalName: api.example.org}
";

#[derive(Clone, Copy, PartialEq)]
enum Upstream {
    Answers(ResponseCode),
    /// Over UDP only that the answer is longer.
    Truncates,
    Silent,
}

fn answer(bytes: &[u8], code: ResponseCode, truncated: bool) -> Vec<u8> {
    let asked = Message::from_vec(bytes).expect("a question");
    let mut message = asked.clone();
    message.edns = None;
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message.metadata.truncation = truncated;
    if code == ResponseCode::NoError && !truncated {
        let data = RData::A(Ipv4Addr::new(192, 0, 2, 53).into());
        message.add_answer(Record::from_rdata(asked.queries[0].name().clone(), 300, data));
    }
    message.to_vec().expect("an answer")
}

/// A server that is asked, and how often it was over UDP and TCP.
async fn other(is: Upstream) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let (udp, tcp) = sockets().await;
    let address = tcp.local_addr().expect("its address");
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.expect("a question");
            counted[0].fetch_add(1, Ordering::Relaxed);
            let code = if let Upstream::Answers(code) = is { code } else { ResponseCode::NoError };
            if is != Upstream::Silent {
                let reply = answer(&buffer[..length], code, is == Upstream::Truncates);
                udp.send_to(&reply, from).await.expect("an answer");
            }
        }
    });
    let counted = Arc::clone(&counts);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.expect("a client");
            counted[1].fetch_add(1, Ordering::Relaxed);
            let mut asked = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
            stream.read_exact(&mut asked).await.expect("a question");
            let reply = answer(&asked, ResponseCode::NoError, false);
            stream.write_u16(reply.len() as u16).await.expect("a length");
            stream.write_all(&reply).await.expect("an answer");
        }
    });
    (address, counts)
}

async fn through(upstreams: Vec<SocketAddr>) -> SocketAddr {
    let zone = zone(OBJECTS, &resolved(&[("orders", Some("198.18.0.7"), None)]));
    let (address, zones) = server(zone, Forwarder::new(upstreams)).await;
    // The server lives as long as somebody may change its zone.
    tokio::spawn(async move { zones.closed().await });
    address
}

/// Code and records of the answer.
fn said(message: &Message) -> (ResponseCode, bool, Vec<String>) {
    let records = message.answers.iter().map(ToString::to_string).collect();
    (message.metadata.response_code, message.metadata.authoritative, records)
}

#[tokio::test]
async fn what_is_not_ours_is_asked_of_others_and_the_rest_is_not() {
    let (upstream, counts) = other(Upstream::Answers(ResponseCode::NoError)).await;
    let server = through(vec![upstream]).await;
    let own = [
        ("postgres-orders.shop.svc.cluster.local.", RecordType::A),
        ("no.shop.svc.cluster.local.", RecordType::A),
        ("7.0.18.198.in-addr.arpa.", RecordType::PTR),
        ("api.shop.svc.cluster.local.", RecordType::CNAME),
    ];
    for (name, kind) in own {
        let answer = over_udp(server, &question(name, kind)).await;
        assert!(answer.metadata.authoritative && answer.metadata.recursion_available, "{name}");
    }
    assert_eq!(counts[0].load(Ordering::Relaxed), 0);

    let found = |name: &str| (ResponseCode::NoError, false, vec![format!("{name} 300 IN A 192.0.2.53")]);
    let name = "Example.ORG.";
    assert_eq!(said(&over_udp(server, &question(name, RecordType::A)).await), found(name));
    assert_eq!(said(&over_tcp(server, &question(name, RecordType::A)).await), found(name));
    let back = "9.9.9.9.in-addr.arpa.";
    assert_eq!(said(&over_udp(server, &question(back, RecordType::A)).await), found(back));
    let alias = over_udp(server, &question("api.shop.svc.cluster.local.", RecordType::A)).await;
    let whole =
        ["api.shop.svc.cluster.local. 5 IN CNAME api.example.org.", "api.example.org. 300 IN A 192.0.2.53"];
    assert_eq!(said(&alias), (ResponseCode::NoError, true, whole.map(str::to_owned).into()));
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [4, 0]);
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp() {
    let (upstream, counts) = other(Upstream::Truncates).await;
    let server = through(vec![upstream]).await;
    let answer = over_udp(server, &question("example.org.", RecordType::A)).await;
    assert_eq!(said(&answer).2, ["example.org. 300 IN A 192.0.2.53"]);
    assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 1]);
}

#[tokio::test]
async fn the_next_server_is_asked_where_one_cannot_answer_and_stays_the_first() {
    let (bad, bad_counts) = other(Upstream::Answers(ResponseCode::ServFail)).await;
    let (good, _) = other(Upstream::Answers(ResponseCode::NXDomain)).await;
    let server = through(vec![bad, good]).await;
    for name in ["one.example.org.", "two.example.org."] {
        let answer = over_udp(server, &question(name, RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(bad_counts[0].load(Ordering::Relaxed), 1);
    let only = through(vec![bad]).await;
    let answer = over_udp(only, &question("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn who_does_not_answer_holds_nobody_up_for_long() {
    let (silent, counts) = other(Upstream::Silent).await;
    let server = through(vec![silent]).await;
    // A hundred of one question, which is out once (sent twice), and of ours.
    let clients = (0..100).map(|_| {
        tokio::spawn(async move {
            over_udp(server, &question("example.org.", RecordType::A)).await.metadata.response_code
        })
    });
    let clients: Vec<_> = clients.collect();
    let own = over_udp(server, &question("postgres-orders.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(own.answers.len(), 1);
    for client in clients {
        assert_eq!(client.await.expect("a client"), ResponseCode::ServFail);
    }
    // On a busy machine some come when the first question is over.
    assert!(counts[0].load(Ordering::Relaxed) <= 20, "{counts:?}");
}

#[tokio::test]
async fn a_loop_ends_and_costs_one_question() {
    // What is asked of the relay comes back to us, as from a node's resolver that asks the cluster's DNS.
    let relay = UdpSocket::bind("127.0.0.1:0").await.expect("a UDP port");
    let server = through(vec![relay.local_addr().expect("its address")]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.expect("a datagram");
            if from != server {
                counted.fetch_add(1, Ordering::Relaxed);
                relay.send_to(&buffer[..length], server).await.expect("a question");
            }
        }
    });
    let answer = over_udp(server, &question("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(asked.load(Ordering::Relaxed) <= 2, "{asked:?}");
}

#[tokio::test]
async fn too_many_who_wait_are_told_to_try_again() {
    let (silent, _) = other(Upstream::Silent).await;
    let forwarder = Arc::new(Forwarder::new(vec![silent]).expect("a server"));
    let ask = |number: usize| {
        let forwarder = Arc::clone(&forwarder);
        let query = super::query(&format!("n{number}.example.org. A"));
        async move { forwarder.ask(&query).await }
    };
    let waiting: Vec<_> = (0..1024).map(|number| tokio::spawn(ask(number))).collect();
    let full = async {
        while forwarder.places() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), full).await.expect("every place is taken");
    // At once: nobody was asked.
    assert_eq!(ask(1024).now_or_never(), Some(None));
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn an_upstream_is_an_address_and_a_port_and_not_ourselves() {
    let good = [
        ("192.0.2.53", "192.0.2.53:53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
    ];
    for (text, expected) in good {
        assert_eq!(upstream(text).map(|is| is.to_string()), Ok(expected.to_owned()), "{text}");
    }
    for text in ["", "dns.example.org", "192.0.2.53:", "192.0.2.53:99999", "[192.0.2.53"] {
        assert!(upstream(text).is_err(), "{text}");
    }
    let addresses =
        |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    let table = [
        (&["10.96.0.10:53"][..], "10.96.0.10:53", true),
        (&["10.96.0.10:53"], "10.96.0.11:53", false),
        (&["10.96.0.10:53"], "10.96.0.10:5353", false),
        (&["10.96.0.10:53", "[fd00::10]:53"], "[fd00::10]:53", true),
        (&["0.0.0.0:53"], "127.0.0.1:53", true),
        (&["[::]:53"], "127.0.0.1:53", true),
        (&["0.0.0.0:53"], "192.0.2.53:53", false),
        (&["[::]:53"], "[::ffff:127.0.0.1]:53", true),
        (&["10.96.0.10:53"], "0.0.0.0:53", true),
    ];
    for (listen, text, is_own) in table {
        let found = own_upstream(&addresses(&[text]), &addresses(listen));
        assert_eq!(found.is_some(), is_own, "{text} while listening on {listen:?}");
    }
}
