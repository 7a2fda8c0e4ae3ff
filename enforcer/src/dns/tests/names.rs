//! Each record of the specification, and the absence of each.

use hickory_proto::{
    op::{Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::{own, resolved, told, zone};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: NodePort
  clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7, "fd00:96::7"]
  ipFamilies: [IPv4, IPv6]
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: quic, port: 443, protocol: UDP}, {port: 9}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.9], hostname: web-0}]
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: pg, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
metadata: {name: db-4, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints:
- {addresses: [10.244.0.3], hostname: db-0, conditions: {ready: true}, topology: {kubernetes.io/hostname: n1}}
- {addresses: [10.244.0.4], conditions: {}, targetRef: {kind: Pod, name: db-x}}
- {addresses: [10.244.0.5], hostname: db-2, conditions: {ready: false}}
ports: [{name: pg, port: 5432, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-6, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
endpoints: [{addresses: ["fd00:244::3"], hostname: db-0}, {addresses: ["fd00:244::4"]}]
ports: [{name: pg, port: 5432, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: starting, namespace: shop}
spec: {clusterIP: None, publishNotReadyAddresses: true}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: starting-1, namespace: shop, labels: {kubernetes.io/service-name: starting}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.6], hostname: s-0, conditions: {ready: false, serving: false, terminating: true}}]
ports: null
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: quiet}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: idle-1, namespace: quiet, labels: {kubernetes.io/service-name: idle}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.8], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: byhand, namespace: shop}
spec: {clusterIP: None, ipFamilies: [IPv4], ports: [{name: http, port: 80}, {name: sig, port: 81, protocol: SCTP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: byhand, namespace: shop, labels: {kubernetes.io/service-name: byhand}}
endpoints: [{addresses: [192.0.2.80, "fd00::80", web.example.org]}]
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: Api.Example.org, clusterIP: ""}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: dangling, namespace: shop}
spec: {type: ExternalName, externalName: nobody.shop.svc.cluster.local.}
---
apiVersion: v1
kind: Service
metadata: {name: circle, namespace: shop}
spec: {type: ExternalName, externalName: circle.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: Shouting, namespace: shop}
spec: {clusterIP: 10.96.0.99}
"#;

const SOA: &str =
    "authority: cluster.local. 5 IN SOA ns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";

fn nothing() -> Vec<&'static str> {
    vec!["NXDomain aa", SOA]
}

fn no_data() -> Vec<&'static str> {
    vec!["NoError aa", SOA]
}

/// Names are without `.svc.cluster.local.` where they do not end with a dot.
fn check(table: &[(&str, Vec<&str>)]) {
    let zone = zone(CLUSTER, &resolved(&[]));
    for (question, expected) in table {
        let (name, kind) = question.split_once(' ').unwrap();
        let end = if name.ends_with('.') { "" } else { ".svc.cluster.local." };
        assert_eq!(told(&zone, &format!("{name}{end} {kind}")), *expected, "{question}");
    }
}

#[test]
fn a_service_has_its_own_addresses_and_named_ports() {
    check(&[
        ("web.shop A", vec!["NoError aa", "web.shop.svc.cluster.local. 5 IN A 10.96.0.7"]),
        ("web.shop AAAA", vec!["NoError aa", "web.shop.svc.cluster.local. 5 IN AAAA fd00:96::7"]),
        (
            "_http._tcp.web.shop SRV",
            vec![
                "NoError aa",
                "_http._tcp.web.shop.svc.cluster.local. 5 IN SRV 0 100 80 web.shop.svc.cluster.local.",
                "additional: web.shop.svc.cluster.local. 5 IN A 10.96.0.7",
                "additional: web.shop.svc.cluster.local. 5 IN AAAA fd00:96::7",
            ],
        ),
        ("_http._tcp.web.shop A", no_data()),
        ("_http._udp.web.shop SRV", nothing()),
        ("_quic._tcp.web.shop SRV", nothing()),
        ("_._tcp.web.shop SRV", nothing()),
        ("http._tcp.web.shop SRV", nothing()),
        ("_http.tcp.web.shop SRV", nothing()),
        ("_tcp.web.shop SRV", no_data()),
        ("_udp.web.shop A", no_data()),
        ("_sctp.web.shop A", nothing()),
        ("web.shop SRV", no_data()),
        ("web.shop TXT", no_data()),
        // Its endpoints have no names: whoever wants them asks for a headless Service.
        ("web-0.web.shop A", nothing()),
        ("10-244-0-9.web.shop A", nothing()),
        ("a._http._tcp.web.shop SRV", nothing()),
    ]);
}

#[test]
fn a_headless_service_is_its_ready_endpoints() {
    let at = |port: &str, host: &str| {
        format!("_pg._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 100 {port} {host}.db.shop.svc.cluster.local.")
    };
    let ports = [at("5432", "10-244-0-4"), at("5432", "db-0"), at("5432", "fd00-244-0-0-0-0-0-4")];
    let [one, two, three] = ports.each_ref().map(String::as_str);
    check(&[
        (
            "db.shop A",
            vec![
                "NoError aa",
                "db.shop.svc.cluster.local. 5 IN A 10.244.0.3",
                "db.shop.svc.cluster.local. 5 IN A 10.244.0.4",
            ],
        ),
        (
            "db.shop AAAA",
            vec![
                "NoError aa",
                "db.shop.svc.cluster.local. 5 IN AAAA fd00:244::3",
                "db.shop.svc.cluster.local. 5 IN AAAA fd00:244::4",
            ],
        ),
        ("db-0.db.shop A", vec!["NoError aa", "db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.3"]),
        ("db-0.db.shop AAAA", vec!["NoError aa", "db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::3"]),
        (
            "10-244-0-4.db.shop A",
            vec!["NoError aa", "10-244-0-4.db.shop.svc.cluster.local. 5 IN A 10.244.0.4"],
        ),
        ("10-244-0-4.db.shop AAAA", no_data()),
        ("10-244-0-3.db.shop A", nothing()),
        ("db-2.db.shop A", nothing()),
        (
            "_pg._tcp.db.shop SRV",
            vec![
                "NoError aa",
                one,
                two,
                three,
                "additional: 10-244-0-4.db.shop.svc.cluster.local. 5 IN A 10.244.0.4",
                "additional: db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.3",
                "additional: db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::3",
                "additional: fd00-244-0-0-0-0-0-4.db.shop.svc.cluster.local. 5 IN AAAA fd00:244::4",
            ],
        ),
        ("_tcp.db.shop A", no_data()),
        ("_http._tcp.db.shop SRV", nothing()),
        ("starting.shop A", vec!["NoError aa", "starting.shop.svc.cluster.local. 5 IN A 10.244.0.6"]),
        ("starting.shop AAAA", no_data()),
        ("s-0.starting.shop A", vec!["NoError aa", "s-0.starting.shop.svc.cluster.local. 5 IN A 10.244.0.6"]),
        ("idle.quiet A", nothing()),
        ("_http._tcp.idle.quiet SRV", nothing()),
        ("quiet A", nothing()),
    ]);
}

#[test]
fn without_a_selector_the_slices_may_leave_things_to_the_service() {
    check(&[
        ("byhand.shop A", vec!["NoError aa", "byhand.shop.svc.cluster.local. 5 IN A 192.0.2.80"]),
        ("byhand.shop AAAA", no_data()),
        (
            "_sig._sctp.byhand.shop SRV",
            vec![
                "NoError aa",
                "_sig._sctp.byhand.shop.svc.cluster.local. 5 IN SRV 0 100 81 192-0-2-80.byhand.shop.svc.cluster.local.",
                "additional: 192-0-2-80.byhand.shop.svc.cluster.local. 5 IN A 192.0.2.80",
            ],
        ),
    ]);
}

#[test]
fn another_name_leads_on_as_far_as_it_is_ours() {
    check(&[
        ("outside.shop A", vec!["NoError aa", "outside.shop.svc.cluster.local. 5 IN CNAME api.example.org."]),
        (
            "outside.shop CNAME",
            vec!["NoError aa", "outside.shop.svc.cluster.local. 5 IN CNAME api.example.org."],
        ),
        ("x.outside.shop A", nothing()),
        (
            "alias.shop A",
            vec![
                "NoError aa",
                "alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.",
                "web.shop.svc.cluster.local. 5 IN A 10.96.0.7",
            ],
        ),
        (
            "alias.shop MX",
            vec!["NoError aa", "alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.", SOA],
        ),
        (
            "dangling.shop A",
            vec![
                "NXDomain aa",
                "dangling.shop.svc.cluster.local. 5 IN CNAME nobody.shop.svc.cluster.local.",
                SOA,
            ],
        ),
        ("circle.shop A", vec!["ServFail"]),
    ]);
}

#[test]
fn addresses_lead_back_to_their_names() {
    let own =
        |name: &str| format!("authority: {name} 5 IN SOA ns.{name} hostmaster.{name} 1 7200 1800 86400 5");
    let none = own("7.0.96.10.in-addr.arpa.");
    let v6 = "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.";
    let v6_answer = format!("{v6} 5 IN PTR fd00-244-0-0-0-0-0-4.db.shop.svc.cluster.local.");
    let service6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.";
    let service6_answer = format!("{service6} 5 IN PTR web.shop.svc.cluster.local.");
    check(&[
        (
            "7.0.96.10.in-addr.arpa. PTR",
            vec!["NoError aa", "7.0.96.10.in-addr.arpa. 5 IN PTR web.shop.svc.cluster.local."],
        ),
        ("7.0.96.10.in-addr.arpa. A", vec!["NoError aa", &none]),
        (&format!("{service6} PTR"), vec!["NoError aa", &service6_answer]),
        (
            "3.0.244.10.in-addr.arpa. PTR",
            vec!["NoError aa", "3.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local."],
        ),
        (
            &format!("{} PTR", v6.to_uppercase()),
            vec!["NoError aa", &v6_answer.replace(v6, &v6.to_uppercase())],
        ),
        // Not ready; an endpoint of a Service with an address of its own; of nobody; not a whole address.
        ("5.0.244.10.in-addr.arpa. PTR", vec!["Refused"]),
        ("9.0.244.10.in-addr.arpa. PTR", vec!["Refused"]),
        ("1.2.0.192.in-addr.arpa. PTR", vec!["Refused"]),
        ("0.96.10.in-addr.arpa. PTR", vec!["Refused"]),
        ("007.0.96.10.in-addr.arpa. PTR", vec!["Refused"]),
        ("in-addr.arpa. SOA", vec!["Refused"]),
    ]);
}

#[test]
fn the_zone_says_what_it_is_and_what_it_has() {
    let soa = &SOA["authority: ".len()..];
    check(&[
        ("dns-version.cluster.local. TXT", vec!["NoError aa", "dns-version.cluster.local. 5 IN TXT 1.1.0"]),
        ("dns-version.cluster.local. A", no_data()),
        ("cluster.local. SOA", vec!["NoError aa", soa]),
        ("cluster.local. ANY", vec!["NoError aa", soa]),
        ("cluster.local. A", no_data()),
        ("svc.cluster.local. A", no_data()),
        ("shop A", no_data()),
        ("hop A", nothing()),
        ("nobody.shop A", nothing()),
        ("web.nowhere A", nothing()),
        ("shouting.shop A", nothing()),
        ("*.shop A", nothing()),
        ("web.*.svc.cluster.local. A", nothing()),
        ("web.shop.cluster.local. A", nothing()),
        ("web.shop.svc.cluster.local.shop A", nothing()),
        ("example.org. A", vec!["Refused"]),
        ("local. A", vec!["Refused"]),
        (". NS", vec!["Refused"]),
        ("othercluster.local. A", vec!["Refused"]),
    ]);
}

#[test]
fn labels_that_are_no_text_name_nothing() {
    let zone = zone(CLUSTER, &resolved(&[]));
    for label in [&b"w\x03b"[..], b"w\xffb", b"we.b", b"\\", b" ", b"\0"] {
        let labels = [label, b"shop", b"svc", b"cluster", b"local"];
        let name = Name::from_labels(labels).unwrap();
        let (reply, next) = own(&zone, &Query::query(name.clone(), RecordType::A));
        assert_eq!((reply.code, next), (ResponseCode::NXDomain, None), "{name}");
    }
}

#[test]
fn the_name_of_a_pod_is_its_address_wherever_it_is() {
    check(&[
        (
            "10-244-0-3.shop.pod.cluster.local. A",
            vec!["NoError aa", "10-244-0-3.shop.pod.cluster.local. 5 IN A 10.244.0.3"],
        ),
        (
            "1-2-3-4.nowhere.pod.cluster.local. A",
            vec!["NoError aa", "1-2-3-4.nowhere.pod.cluster.local. 5 IN A 1.2.3.4"],
        ),
        ("1-2-3-4.shop.pod.cluster.local. AAAA", no_data()),
        (
            "fd00-244--3.shop.pod.cluster.local. AAAA",
            vec!["NoError aa", "fd00-244--3.shop.pod.cluster.local. 5 IN AAAA fd00:244::3"],
        ),
        ("1-2-3.shop.pod.cluster.local. A", nothing()),
        ("1-2-3-256.shop.pod.cluster.local. A", nothing()),
        ("web.shop.pod.cluster.local. A", nothing()),
        ("x.1-2-3-4.shop.pod.cluster.local. A", nothing()),
        ("shop.pod.cluster.local. A", no_data()),
        ("pod.cluster.local. A", no_data()),
        ("_a.pod.cluster.local. A", nothing()),
    ]);
}

#[test]
fn a_name_is_answered_as_it_was_asked() {
    check(&[
        ("WeB.sHoP.SVC.Cluster.LOCAL. A", vec!["NoError aa", "WeB.sHoP.SVC.Cluster.LOCAL. 5 IN A 10.96.0.7"]),
        (
            "_HTTP._Tcp.web.shop.svc.cluster.LOCAL. SRV",
            vec![
                "NoError aa",
                "_HTTP._Tcp.web.shop.svc.cluster.LOCAL. 5 IN SRV 0 100 80 web.shop.svc.cluster.local.",
                "additional: web.shop.svc.cluster.local. 5 IN A 10.96.0.7",
                "additional: web.shop.svc.cluster.local. 5 IN AAAA fd00:96::7",
            ],
        ),
    ]);
}
