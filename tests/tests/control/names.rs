//! `enforcer dns` on a real API server: what somebody applies has its names, whatever becomes of the server.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use enforcer_tests::{
    control_plane::ControlPlane,
    dig,
    lab::{Running, roles::enforcer, wait},
};

use crate::world::World;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: pg, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: pg, port: 5432}]
endpoints:
- {addresses: [10.244.0.3], hostname: db-0, conditions: {ready: true}}
- {addresses: [10.244.0.4], hostname: db-1, conditions: {ready: false}}
";

struct Dns {
    kubeconfig: PathBuf,
    at: SocketAddr,
    _process: Running,
}

impl Dns {
    /// At the address of the API server, with no more rights than it needs.
    fn start(plane: &ControlPlane) -> Self {
        for args in [
            "create serviceaccount dns --namespace kube-system",
            "create clusterrole dns --verb get,list,watch --resource services,endpointslices.discovery.k8s.io",
            "create clusterrolebinding dns --clusterrole dns --serviceaccount kube-system:dns",
        ] {
            plane.kubectl(&args.split(' ').collect::<Vec<_>>()).expect("it is made");
        }
        let kubeconfig = plane.kubeconfig_of("kube-system", "dns").expect("a token is given");
        let address = plane.server().split(['/', ':']).find_map(|part| part.parse::<Ipv4Addr>().ok());
        Self::listen(kubeconfig, SocketAddr::from((address.expect("the server has an address"), 53)))
    }

    fn listen(kubeconfig: PathBuf, at: SocketAddr) -> Self {
        let log = kubeconfig.with_extension(format!("dns-{}.log", at.port()));
        let mut command = Command::new(enforcer().expect("the binary is built"));
        command.arg("dns").arg("--kubeconfig").arg(&kubeconfig).arg("--listen").arg(at.to_string());
        let process = Running::start(&mut command, &log).expect("it starts");
        Self { kubeconfig, at, _process: process }
    }

    /// `None`: no answer at all.
    fn ask(&self, question: &str) -> Option<Vec<String>> {
        let mut command = Command::new("dig");
        command
            .arg(format!("@{}", self.at.ip()))
            .arg("-p")
            .arg(self.at.port().to_string())
            .args(dig::OPTIONS)
            .args(question.split(' '));
        dig::answer(&String::from_utf8_lossy(&command.output().expect("dig starts").stdout))
    }

    fn wait(&self, question: &str, expected: &[&str]) {
        let mut last = None;
        let told = wait::for_true(question, || {
            last = self.ask(question);
            last.as_deref().is_some_and(|last| last == expected)
        });
        assert!(told.is_ok(), "{question}: {last:?}, expected {expected:?}");
    }
}

fn code(answer: Option<Vec<String>>) -> String {
    answer.and_then(|lines| lines.into_iter().next()).unwrap_or_default()
}

#[test]
fn the_names_of_a_cluster_are_those_of_its_services_while_its_server_is_away() {
    let mut plane = ControlPlane::start().expect("the control plane starts");
    plane.kubectl(&["create", "namespace", "shop"]).expect("a namespace is made");
    plane.kubectl_with(&["apply", "--filename", "-"], OBJECTS).expect("the objects are taken");
    let address = plane
        .kubectl(&["get", "service", "web", "--namespace", "shop", "--output", "jsonpath={.spec.clusterIP}"])
        .expect("the Service is there");
    let dns = Dns::start(&plane);
    let web = format!("web.shop.svc.cluster.local. 5 IN A {address}");
    dns.wait("web.shop.svc.cluster.local A", &["NOERROR aa", &web]);
    dns.wait(
        "api.shop.svc.cluster.local A",
        &["NOERROR aa", "api.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.", &web],
    );
    dns.wait(
        "_pg._tcp.db.shop.svc.cluster.local SRV",
        &[
            "NOERROR aa",
            "_pg._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 5432 db-0.db.shop.svc.cluster.local.",
            "additional: db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.3",
        ],
    );
    assert_eq!(code(dns.ask("kubernetes.default.svc.cluster.local A")), "NOERROR aa");
    assert_eq!(code(dns.ask("db-1.db.shop.svc.cluster.local A")), "NXDOMAIN aa");
    assert_eq!(code(dns.ask("example.org A")), "REFUSED");

    plane.kill().expect("it is killed");
    assert_eq!(code(dns.ask("db-0.db.shop.svc.cluster.local A")), "NOERROR aa", "what was said last holds");
    plane.restart().expect("it starts again");
    plane
        .kubectl_with(&["apply", "--filename", "-"], &OBJECTS.replace("ready: false", "ready: true"))
        .expect("the objects are taken");
    dns.wait(
        "db.shop.svc.cluster.local A",
        &[
            "NOERROR aa",
            "db.shop.svc.cluster.local. 5 IN A 10.244.0.3",
            "db.shop.svc.cluster.local. 5 IN A 10.244.0.4",
        ],
    );
    plane.kubectl(&["delete", "service", "db", "--namespace", "shop"]).expect("the Service is deleted");
    wait::for_true("the name is gone", || code(dns.ask("db.shop.svc.cluster.local A")) == "NXDOMAIN aa")
        .expect("the DNS server follows the API server");
}

#[test]
fn before_the_cluster_is_known_no_name_is_said_to_be_missing() {
    let plane = ControlPlane::start().expect("the control plane starts");
    let dns = Dns::start(&plane);
    dns.wait("no.shop.svc.cluster.local A", &[
        "NXDOMAIN aa",
        "authority: cluster.local. 5 IN SOA ns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
    ]);
    plane.pause().expect("it is paused");
    let late = Dns::listen(dns.kubeconfig.clone(), SocketAddr::new(dns.at.ip(), 54));
    // It answers from its first moment, and only that it does not know.
    late.wait("no.shop.svc.cluster.local A", &["SERVFAIL"]);
    late.wait("1.0.96.10.in-addr.arpa PTR", &["SERVFAIL"]);
    late.wait("example.org A", &["REFUSED"]);
    plane.resume().expect("it goes on");
    wait::for_true("every name is known", || code(late.ask("no.shop.svc.cluster.local A")) == "NXDOMAIN aa")
        .expect("the lists are complete");
}

#[test]
fn a_destination_has_its_name_and_no_address_of_a_stranger() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    let dns = Dns::start(&world.plane);
    let name = "postgres-pg.shop.svc.cluster.local.";
    let address = format!("{name} 5 IN A 198.18.0.1");
    dns.wait(&format!("{name} A"), &["NOERROR aa", &address]);
    let evil = OBJECTS
        .split("---")
        .last()
        .expect("a slice")
        .replace("db-1", "evil")
        .replace(": db}", ": postgres-pg}");
    world.apply(&evil).expect("the slice is taken");
    world
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: after, namespace: shop}\nspec: {clusterIP: None}\n")
        .expect("a Service is taken");
    // Whoever knows of this slice knows of the one before.
    world.apply(&evil.replace("evil", "after").replace("postgres-pg", "after")).expect("the slice is taken");
    dns.wait(
        "after.shop.svc.cluster.local A",
        &["NOERROR aa", "after.shop.svc.cluster.local. 5 IN A 10.244.0.3"],
    );
    assert_eq!(dns.ask(&format!("{name} A")).unwrap_or_default(), ["NOERROR aa", &address]);
    assert_eq!(code(dns.ask(&format!("db-0.{name} A"))), "NXDOMAIN aa");
    let srv = dns.ask(&format!("_tcp-5432._tcp.{name} SRV")).unwrap_or_default();
    assert_eq!(srv.first().map(String::as_str), Some("NOERROR aa"), "{srv:?}");
}
