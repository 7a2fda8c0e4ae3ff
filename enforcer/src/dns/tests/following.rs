//! Changes: what they lead to is what a fresh start leads to, and they cost what they touch.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::{query, resolved, snapshot, told, zone};
use crate::{
    dns::{
        Zone,
        answer::own,
        book::Book,
        follow::{Names, Ready},
    },
    model::{Kind, Object, ObjectKey, Spec},
    resolve::Resolved,
    state::State,
    store::Snapshot,
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: None}
";
const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.3], hostname: a}, {addresses: [10.244.0.4]}]
ports: [{name: http, port: 80}]
";
const OTHER_SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.4]}, {addresses: [10.244.0.5]}]
";
const STRANGER: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: postgres-orders, namespace: shop}
spec: {clusterIP: 10.96.0.66, ports: [{name: pg, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: evil, namespace: shop, labels: {kubernetes.io/service-name: postgres-orders}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.66], hostname: evil}]
";

#[test]
fn after_any_change_the_zone_is_that_of_a_fresh_start() {
    let moved = SLICE.replace("service-name: web", "service-name: postgres-orders");
    let alone = SLICE.trim_start_matches("\n---").to_owned();
    let addressed = SERVICE.replace("clusterIP: None", "clusterIP: 10.96.0.7");
    let texts = [
        String::new(),
        SERVICE.to_owned(),
        format!("{SERVICE}{SLICE}"),
        format!("{SERVICE}{SLICE}{OTHER_SLICE}"),
        format!("{SERVICE}{OTHER_SLICE}"),
        alone,
        format!("{addressed}{SLICE}"),
        format!("{SERVICE}{STRANGER}{SLICE}"),
        format!("{SERVICE}{STRANGER}{moved}"),
        format!("{SERVICE}{SLICE}").replace("shop", "other"),
        format!("{SERVICE}{SLICE}").replace("10.244.0.4]}", "10.244.0.4], conditions: {ready: false}}"),
    ];
    let destinations = [resolved(&[]), resolved(&[("orders", Some("198.18.0.7"), Some("fd00:1::7"))])];
    let mut book = Book::new("cluster.local");
    let states: Vec<_> =
        texts.iter().flat_map(|text| destinations.iter().map(move |is| (text, is))).collect();
    for index in 0..states.len() {
        // Every state after every other one, with strides that reach all pairs.
        for stride in 0..states.len() {
            let (text, destinations) = states[(index + stride * stride) % states.len()];
            book.update(&snapshot(text), Some(destinations));
            assert_eq!(book.zone(), zone(text, destinations), "{text} {destinations:?}");
        }
    }
}

#[test]
fn nobody_adds_an_address_to_a_destination() {
    let destinations = resolved(&[("orders", Some("198.18.0.7"), Some("fd00:1::7"))]);
    for text in [String::new(), STRANGER.trim_start_matches("\n---").to_owned()] {
        let zone = zone(&text, &destinations);
        let name = "postgres-orders.shop.svc.cluster.local.";
        let back = "7.0.18.198.in-addr.arpa.";
        let table = [
            (format!("{name} A"), format!("{name} 5 IN A 198.18.0.7")),
            (format!("{name} AAAA"), format!("{name} 5 IN AAAA fd00:1::7")),
            (format!("{back} PTR"), format!("{back} 5 IN PTR {name}")),
        ];
        for (question, answer) in table {
            assert_eq!(told(&zone, &question), ["NoError aa", &answer], "{question}");
        }
        let port = format!("_tcp-5432._tcp.{name}");
        assert_eq!(
            told(&zone, &format!("{port} SRV"))[..2],
            ["NoError aa".to_owned(), format!("{port} 5 IN SRV 0 100 5432 {name}")]
        );
        for absent in [format!("evil.{name} A"), format!("_pg._tcp.{name} SRV")] {
            assert_eq!(own(&zone, &query(&absent)).0.code, ResponseCode::NXDomain, "{absent}");
        }
    }
    // Nor takes the way back from it.
    let claim = SERVICE.to_owned() + &SLICE.replace("10.244.0.3", "198.18.0.7");
    let zone = zone(&claim, &destinations);
    let back = "7.0.18.198.in-addr.arpa.";
    assert_eq!(
        told(&zone, &format!("{back} PTR")),
        ["NoError aa", "7.0.18.198.in-addr.arpa. 5 IN PTR postgres-orders.shop.svc.cluster.local."]
    );
}

#[test]
fn of_a_service_that_a_controller_of_ours_wrote_only_its_own_slices_count() {
    let ours = "labels: {app.kubernetes.io/managed-by: enforcer, ";
    let text = "
apiVersion: v1
kind: Service
metadata: {name: postgres-orders, namespace: shop, labels: {app.kubernetes.io/managed-by: enforcer}}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: ours, namespace: shop, labels: {kubernetes.io/service-name: postgres-orders}}
addressType: IPv4
endpoints: [{addresses: [198.18.0.7]}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: evil, namespace: shop, labels: {kubernetes.io/service-name: postgres-orders}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.66]}]
";
    let text = text.replacen("labels: {kubernetes.io", &format!("{ours}kubernetes.io"), 1);
    let name = "postgres-orders.shop.svc.cluster.local.";
    assert_eq!(
        told(&zone(&text, &resolved(&[])), &format!("{name} A")),
        ["NoError aa", &format!("{name} 5 IN A 198.18.0.7")]
    );
}

/// A cluster of 5 000 Services with two EndpointSlices each.
fn large() -> Snapshot {
    let template = snapshot(&format!("{SERVICE}{SLICE}"));
    let [service, slice] = [(Kind::Service, "web"), (Kind::EndpointSlice, "web-1")]
        .map(|(kind, name)| Object::clone(&template.objects[&ObjectKey::new(kind, "shop", name)]));
    let mut objects = std::collections::BTreeMap::new();
    let mut add = |mut object: Object, name: String| {
        object.metadata.name = name;
        object.metadata.namespace = "shop".to_owned();
        objects.insert(object.key(), Arc::new(object));
    };
    for number in 0..5_000_u32 {
        add(service.clone(), format!("web-{number}"));
        for part in 0..2_u32 {
            let mut slice = slice.clone();
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number * 4 + part * 2);
            slice.metadata.labels.insert("kubernetes.io/service-name".to_owned(), format!("web-{number}"));
            set(&mut slice, &address.to_string());
            add(slice, format!("web-{number}-{part}"));
        }
    }
    Snapshot { revision: 1, objects, ..Snapshot::default() }
}

fn set(slice: &mut Object, address: &str) {
    let Spec::EndpointSlice(spec) = &mut slice.spec else { panic!("an EndpointSlice") };
    spec.endpoints.truncate(1);
    spec.endpoints[0].addresses = vec![address.to_owned()];
}

fn copied(before: &Zone, after: &Zone) -> (usize, usize) {
    let [before, after] = [before, after].map(|zone| zone.names.as_ref().unwrap());
    let services = after.services.iter().zip(before.services.iter());
    let others = services.filter(|((_, one), (_, other))| !Arc::ptr_eq(one, other)).count();
    let shards = after.services.copied_since(&before.services) + after.holders.copied_since(&before.holders);
    (others, shards)
}

#[test]
fn one_change_among_thousands_touches_one_service() {
    let mut book = Book::new("cluster.local");
    let mut now = large();
    assert_eq!(book.update(&Arc::new(now.clone()), None), 5_000);
    let before = book.zone();
    let key = ObjectKey::new(Kind::EndpointSlice, "shop", "web-77-1");
    let mut slice = Object::clone(&now.objects[&key]);
    set(&mut slice, "10.99.0.1");
    now.objects.insert(key, Arc::new(slice));
    assert_eq!(book.update(&Arc::new(now.clone()), None), 1);
    let after = book.zone();
    // The Service itself; its shard, and those of the address that came and of the one that went.
    assert_eq!(copied(&before, &after), (1, 3));
    assert_eq!(
        told(&after, "web-77.shop.svc.cluster.local. A").len(),
        3,
        "{:?}",
        told(&after, "web-77.shop.svc.cluster.local. A")
    );
    // What others are told meanwhile is what there was.
    assert_eq!(told(&before, "1.0.99.10.in-addr.arpa. PTR"), ["Refused"]);
    assert_eq!(told(&after, "1.0.99.10.in-addr.arpa. PTR")[0], "NoError aa");
    assert_eq!(book.update(&Arc::new(now), None), 0);
    assert_eq!(copied(&after, &book.zone()), (0, 0));
}

#[test]
fn nothing_is_said_of_any_name_before_all_are_known() {
    let objects = snapshot(&format!("{SERVICE}{SLICE}"));
    let state = Arc::new(State::new(
        "fd00:1:2::/48".parse().unwrap(),
        "198.18.0.0/16".parse().unwrap(),
        "198.19.0.0/16".parse().unwrap(),
    ));
    let questions =
        ["web.shop.svc.cluster.local. A", "no.shop.svc.cluster.local. A", "1.0.96.10.in-addr.arpa. PTR"];
    let codes = |zone: &Zone| questions.map(|question| own(zone, &query(question)).0.code);
    let waiting = [ResponseCode::ServFail; 3];
    let known = [ResponseCode::NoError, ResponseCode::NXDomain, ResponseCode::Refused];

    let mut standalone = Names::new("cluster.local", Ready::WithState);
    assert_eq!(codes(&standalone.zone(&objects, None)), waiting);
    assert_eq!(codes(&standalone.zone(&objects, Some(&state))), known);

    let mut cluster = Names::new("cluster.local", Ready::WithObjects);
    assert_eq!(codes(&cluster.zone(&Arc::default(), None)), waiting);
    let listed = Arc::new(Snapshot { revision: 1, ..Snapshot::clone(&objects) });
    assert_eq!(codes(&cluster.zone(&listed, None)), known);
    assert_eq!(own(&cluster.zone(&listed, None), &query("example.org. A")).0.code, ResponseCode::Refused);
}

#[test]
fn no_destination_is_forgotten_while_services_come_and_go() {
    let mut book = Book::new("cluster.local");
    let destinations: Resolved = resolved(&[("orders", Some("198.18.0.7"), None)]);
    book.update(&snapshot(""), Some(&destinations));
    for text in [format!("{SERVICE}{STRANGER}"), SERVICE.to_owned()] {
        book.update(&snapshot(&text), None);
        assert_eq!(book.zone(), zone(&text, &destinations), "{text}");
    }
    book.update(&snapshot(SERVICE), Some(&resolved(&[])));
    assert_eq!(book.zone(), zone(SERVICE, &resolved(&[])));
}
