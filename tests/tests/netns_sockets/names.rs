//! Names of a cluster's Services as clients that are not ours see them, beside those of destinations.

use std::{fmt::Write as _, process::Command};

use enforcer_tests::{
    dig,
    lab::{Lab, Running, command::inside, manifests::Service, network::DNS4, roles::enforcer, wait},
};

use crate::shared::lab;

const FILE: &str = "services.yaml";
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.7.7, clusterIPs: [10.96.7.7, 'fd00:96::7'], ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-4, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.244.7.1], hostname: db-0}, {addresses: [10.244.7.2], conditions: {ready: false}}]
ports: [{name: pg, port: 5432}]
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
metadata: {name: db-6, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
endpoints: [{addresses: ['fd00:244::1'], hostname: db-0}]
ports: [{name: pg, port: 5432}]
";
const SOA: &str =
    "authority: cluster.local. 5 IN SOA ns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";

/// What `dig` in a pod is told over one transport.
fn ask(lab: &Lab, transport: &str, question: &str) -> Vec<String> {
    ask_at(lab, "53", transport, question)
}

fn ask_at(lab: &Lab, port: &str, transport: &str, question: &str) -> Vec<String> {
    let server = format!("@{DNS4}");
    let words = [&server, "-p", port, transport].into_iter().chain(dig::OPTIONS).chain(question.split(' '));
    let outcome = lab.place("plain").run("dig", &words.collect::<Vec<_>>()).expect("dig starts");
    dig::answer(&outcome.stdout).unwrap_or_else(|| panic!("{question}: no answer: {}", outcome.said()))
}

/// What the C library in a pod makes of a name.
fn addresses(lab: &Lab, database: &str, name: &str) -> Vec<String> {
    let outcome = lab.place("plain").run("getent", &[database, name]).expect("getent starts");
    let mut found: Vec<String> =
        outcome.stdout.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    found.sort();
    found.dedup();
    found
}

fn table() -> Vec<(&'static str, Vec<String>)> {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.";
    let v6_back = format!("{v6} 5 IN PTR db-0.db.shop.svc.cluster.local.");
    let table = [
        ("web.shop.svc.cluster.local A", vec!["NOERROR aa", "web.shop.svc.cluster.local. 5 IN A 10.96.7.7"]),
        (
            "web.shop.svc.cluster.local AAAA",
            vec!["NOERROR aa", "web.shop.svc.cluster.local. 5 IN AAAA fd00:96::7"],
        ),
        ("web.shop.svc.cluster.local MX", vec!["NOERROR aa", SOA]),
        ("no.shop.svc.cluster.local A", vec!["NXDOMAIN aa", SOA]),
        ("db.shop.svc.cluster.local A", vec!["NOERROR aa", "db.shop.svc.cluster.local. 5 IN A 10.244.7.1"]),
        (
            "_pg._tcp.db.shop.svc.cluster.local SRV",
            vec![
                "NOERROR aa",
                "_pg._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 5432 db-0.db.shop.svc.cluster.local.",
                "additional: db-0.db.shop.svc.cluster.local. 5 IN A 10.244.7.1",
                "additional: db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::1",
            ],
        ),
        (
            "api.shop.svc.cluster.local A",
            vec![
                "NOERROR aa",
                "api.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.",
                "web.shop.svc.cluster.local. 5 IN A 10.96.7.7",
            ],
        ),
        ("-x 10.96.7.7", vec!["NOERROR aa", "7.7.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."]),
        ("-x fd00:244::1", vec!["NOERROR aa", &v6_back]),
        ("-x 10.96.7.8", vec!["REFUSED"]),
        (
            "dns-version.cluster.local TXT",
            vec!["NOERROR aa", "dns-version.cluster.local. 5 IN TXT \"1.1.0\""],
        ),
        (
            "10-244-7-9.shop.pod.cluster.local A",
            vec!["NOERROR aa", "10-244-7-9.shop.pod.cluster.local. 5 IN A 10.244.7.9"],
        ),
        ("example.org A", vec!["REFUSED"]),
    ];
    table.map(|(question, answer)| (question, answer.into_iter().map(str::to_owned).collect())).into()
}

#[test]
fn clients_that_are_not_ours_find_every_kind_of_service() {
    let lab = lab();
    lab.save(FILE, SERVICES).expect("the objects are written");
    wait::for_true("the names are there", || {
        !addresses(&lab, "ahosts", "db.shop.svc.cluster.local").is_empty()
    })
    .expect("the DNS server follows the folder");
    for (question, expected) in &table() {
        for transport in ["+notcp", "+tcp", "+noedns"] {
            assert_eq!(ask(&lab, transport, question), *expected, "{question} {transport}");
        }
    }
    assert_eq!(
        addresses(&lab, "ahosts", "db.shop.svc.cluster.local"),
        ["10.244.7.1", "fd00:244::1"],
        "as the C library has it"
    );
    assert_eq!(addresses(&lab, "hosts", "10.96.7.7"), ["10.96.7.7"]);
    let destination = Service::Postgres.fqdn();
    let found = addresses(&lab, "ahostsv4", &destination);
    let [v4] = &*found else { panic!("one address of {destination}: {found:?}") };
    assert_eq!(
        ask(&lab, "+notcp", &format!("-x {v4}"))
            .last()
            .map(|line| line.ends_with(&format!(" PTR {destination}."))),
        Some(true)
    );
    lab.delete(FILE).expect("the objects are deleted");
    wait::for_true("the names are gone", || {
        addresses(&lab, "ahosts", "db.shop.svc.cluster.local").is_empty()
    })
    .expect("the DNS server follows the folder");
}

#[test]
fn more_than_a_datagram_holds_is_found_as_well() {
    let lab = lab();
    let mut slice = String::from(
        "apiVersion: v1\nkind: Service\nmetadata: {name: many, namespace: shop}\nspec: {clusterIP: None}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: many-1, namespace: shop, labels: {kubernetes.io/service-name: many}}\nendpoints:\n",
    );
    let mut expected = Vec::new();
    for number in 0..200 {
        writeln!(slice, "- {{addresses: [10.244.9.{number}]}}").expect("a text");
        expected.push(format!("10.244.9.{number}"));
    }
    expected.sort();
    lab.save(FILE, &slice).expect("the objects are written");
    wait::for_true("the names are there", || {
        addresses(&lab, "ahosts", "many.shop.svc.cluster.local").len() == 200
    })
    .expect("the C library asks again over TCP");
    assert_eq!(addresses(&lab, "ahosts", "many.shop.svc.cluster.local"), expected);
    for transport in ["+noedns", "+bufsize=4096"] {
        let answer = ask(&lab, transport, "many.shop.svc.cluster.local A");
        assert_eq!((answer[0].as_str(), answer.len()), ("NOERROR tc aa", 201), "{transport}");
    }
    lab.delete(FILE).expect("the objects are deleted");
}

/// A second server in the node's namespace, with the same objects and another domain.
fn second(lab: &Lab, more: &str) -> Command {
    let binary = enforcer().expect("the binary is built");
    let mut command = inside(&lab.id.netns("node"), &lab.id.tools(), &binary.to_string_lossy());
    command.arg("dns").arg("--manifests").arg(lab.id.manifests()).arg("--state").arg(lab.state_file());
    command.args(["--cluster-domain", "other.local", "--listen", &format!("{DNS4}:5353"), "--forward", more]);
    command
}

#[test]
fn what_is_not_ours_is_found_through_the_servers_that_are_named() {
    let mut lab = lab();
    lab.save(FILE, SERVICES).expect("the objects are written");
    let process = Running::start(&mut second(&lab, DNS4), &lab.id.log("second-dns")).expect("it starts");
    lab.processes.insert("second-dns".into(), process);
    let alias = "api.shop.svc.other.local. 5 IN CNAME web.shop.svc.cluster.local.";
    let web = "web.shop.svc.cluster.local. 5 IN A 10.96.7.7";
    let reached = |lab: &Lab| {
        let server = format!("@{DNS4}");
        let words = [server.as_str(), "-p", "5353", "web.shop.svc.cluster.local", "A"];
        let outcome = lab.place("plain").run("dig", &words).expect("dig starts");
        outcome.stdout.contains("10.96.7.7")
    };
    wait::for_true("both servers know the names", || reached(&lab)).expect("one asks the other");
    let table = [
        ("web.shop.svc.cluster.local A", vec!["NOERROR", web]),
        ("web.shop.svc.other.local A", vec!["NOERROR aa", "web.shop.svc.other.local. 5 IN A 10.96.7.7"]),
        ("api.shop.svc.other.local A", vec!["NOERROR aa", alias, web]),
        ("no.shop.svc.cluster.local A", vec!["NXDOMAIN", SOA]),
        ("example.org A", vec!["REFUSED"]),
    ];
    for (question, expected) in &table {
        for transport in ["+notcp", "+tcp"] {
            assert_eq!(ask_at(&lab, "5353", transport, question), *expected, "{question} {transport}");
        }
    }
    let refused = second(&lab, &format!("{DNS4}:5353")).output().expect("it starts");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains(&format!("--forward {DNS4}:5353: leads back here")), "{said}");
    lab.processes.remove("second-dns");
    lab.delete(FILE).expect("the objects are deleted");
}
