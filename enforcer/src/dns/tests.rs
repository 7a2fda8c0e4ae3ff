//! What there is for the questions: objects as YAML, answers as text.

use std::sync::Arc;

use hickory_proto::{
    op::Query,
    rr::{Name, RecordType},
};

use super::{
    Zone,
    answer::{Reply, own},
    book::Book,
};
use crate::{
    model::{Kind, ObjectKey, Protocol},
    resolve::{Destination, DestinationPort, Resolved, host_name},
    source::manifests,
    store::Snapshot,
};

mod following;
mod forwarding;
mod names;
mod wire;

fn snapshot(text: &str) -> Arc<Snapshot> {
    let snapshot = manifests::read_text("cluster.yaml", text);
    assert_eq!(snapshot.problems, [], "{text}");
    Arc::new(snapshot)
}

/// Destinations of ours, each with its addresses.
fn resolved(destinations: &[(&str, Option<&str>, Option<&str>)]) -> Resolved {
    let destination = |(name, v4, v6): &(&str, Option<&str>, Option<&str>)| {
        let key = ObjectKey::new(Kind::Postgres, "shop", *name);
        let destination = Destination {
            key: key.clone(),
            number: 7,
            v4: v4.map(|text| text.parse().unwrap()),
            v6: v6.map(|text| text.parse().unwrap()),
            ports: vec![DestinationPort { protocol: Protocol::Tcp, port: 5432, target_port: 5433 }],
            gateways: Vec::new(),
            endpoints: Vec::new(),
            fqdn: format!("{}.svc.cluster.local", host_name(&key)),
        };
        (key, Arc::new(destination))
    };
    Resolved { destinations: destinations.iter().map(destination).collect(), ..Resolved::default() }
}

fn zone(text: &str, resolved: &Resolved) -> Arc<Zone> {
    let mut book = Book::new("Cluster.Local");
    book.update(&snapshot(text), Some(resolved));
    book.zone()
}

/// `web.shop.svc.cluster.local. A`
fn query(text: &str) -> Query {
    let (name, kind) = text.split_once(' ').unwrap();
    Query::query(Name::from_ascii(name).unwrap(), kind.parse::<RecordType>().unwrap())
}

/// The whole answer, a line each: its code, then the records by section.
fn told(zone: &Zone, question: &str) -> Vec<String> {
    show(&own(zone, &query(question)).0)
}

fn show(reply: &Reply) -> Vec<String> {
    let mut lines = vec![format!("{:?}{}", reply.code, if reply.authoritative { " aa" } else { "" })];
    lines.extend(reply.answers.iter().map(ToString::to_string));
    lines.extend(reply.authorities.iter().map(|record| format!("authority: {record}")));
    lines.extend(reply.additionals.iter().map(|record| format!("additional: {record}")));
    lines
}
