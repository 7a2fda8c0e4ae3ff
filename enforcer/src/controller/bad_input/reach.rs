//! The table of those who reach further than they may: for addresses, names and keys that are somebody else's.

use super::{Case, gateway, object, postgres, raw};

pub(super) fn all() -> Vec<Case> {
    hosts()
        .into_iter()
        .chain(infrastructure())
        .chain(guarded())
        .chain(names())
        .chain(services())
        .chain(twice())
        .collect()
}

/// A Postgres with this backend, and what is said of it.
fn backend(name: &'static str, address: &str, message: &'static str) -> Case {
    postgres(name, &format!("{{gateways: [eu-1], endpoints: [{{address: '{address}'}}]}}"), message)
}

fn hosts() -> Vec<Case> {
    vec![
        backend(
            "the cloud's metadata",
            "169.254.169.254",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 169.254.169.254 is a link-local address, expected the address of a host behind the gateway",
        ),
        backend(
            "a link-local address of IPv6",
            "fe80::1",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: fe80::1 is a link-local address, expected the address of a host behind the gateway",
        ),
        backend(
            "a group",
            "224.0.0.1",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 224.0.0.1 is a multicast address, expected the address of a host behind the gateway",
        ),
        backend(
            "a group of IPv6",
            "ff02::1",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: ff02::1 is a multicast address, expected the address of a host behind the gateway",
        ),
        backend(
            "everybody",
            "255.255.255.255",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 255.255.255.255 is the broadcast address, expected the address of a host behind the gateway",
        ),
        backend(
            "nobody, which is this host",
            "::",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: :: is the unspecified address, expected the address of a host behind the gateway",
        ),
    ]
}

fn infrastructure() -> Vec<Case> {
    vec![
        backend(
            "a node",
            "192.0.2.90",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 192.0.2.90 is an address of Node host-1, expected a host behind the gateway",
        ),
        backend(
            "the API server, written as IPv6",
            "::ffff:192.0.2.91",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 192.0.2.91 is an address of the API server (EndpointSlice default/kubernetes), expected a host behind the gateway",
        ),
        backend(
            "the DNS",
            "192.0.2.92",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 192.0.2.92 is an address of the DNS (Service kube-system/kube-dns), expected a host behind the gateway",
        ),
        raw(
            "another gateway",
            "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-2}
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, endpoints: ['192.0.2.2:51820']}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: bad, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.2}]}
",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 192.0.2.2 is TunnelGateway eu-2 itself, expected a host behind a gateway",
        ),
        gateway(
            "IPv4 in disguise among the backends",
            "endpoints: ['203.0.113.2:51820'], allowedBackends: [{cidr: '::ffff:127.0.0.0/104', ports: [{port: 1}]}]",
            "bad.yaml: TunnelGateway bad: spec.allowedBackends[0].cidr: \"::ffff:127.0.0.0/104\" is IPv4 written as IPv6, expected it as IPv4",
        ),
    ]
}

/// A TunnelGateway that guards this range, and what is said of it.
fn guards(name: &'static str, range: &str, message: &'static str) -> Case {
    gateway(name, &format!("endpoints: ['203.0.113.2:51820'], guardedCIDRs: ['{range}']"), message)
}

fn guarded() -> Vec<Case> {
    vec![
        guards(
            "a guarded range with its own gateway in it",
            "203.0.113.2/32",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 203.0.113.2/32 contains this gateway's endpoint 203.0.113.2:51820, expected a range without it",
        ),
        guards(
            "a guarded range with a node in it",
            "192.0.2.90/32",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 192.0.2.90/32 contains 192.0.2.90, an address of Node host-1, expected a range without it",
        ),
        guards(
            "a guarded range with the API server in it",
            "192.0.2.91/32",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 192.0.2.91/32 contains 192.0.2.91, an address of the API server (EndpointSlice default/kubernetes), expected a range without it",
        ),
        guards(
            "a guarded range with the DNS in it",
            "192.0.2.92/30",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 192.0.2.92/30 contains 192.0.2.92, an address of the DNS (Service kube-system/kube-dns), expected a range without it",
        ),
        guards(
            "all of IPv4 by way of IPv6",
            "::/0",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: ::/0 contains all of IPv4 (::ffff:0:0/96), expected a range without it",
        ),
        guards(
            "IPv4 in disguise",
            "::ffff:192.0.2.0/120",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: \"::ffff:192.0.2.0/120\" is IPv4 written as IPv6, expected it as IPv4",
        ),
        guards(
            "a part of our own range, which would deny it to everybody",
            "198.18.0.0/24",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 198.18.0.0/24 lies in our range 198.18.0.0/16, which is guarded anyway, expected a range outside of it",
        ),
    ]
}

fn names() -> Vec<Case> {
    const SPEC: &str = "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}";
    vec![
        object(
            "the name in capitals",
            "Postgres",
            "{name: PG, namespace: shop}",
            SPEC,
            "bad.yaml: Postgres shop/PG: metadata.name: \"PG\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        object(
            "letters that look the same",
            "Postgres",
            "{name: 'р\u{433}', namespace: shop}",
            SPEC,
            "bad.yaml: Postgres shop/р\u{433}: metadata.name: \"р\u{433}\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        object(
            "a name that goes on into another namespace",
            "Postgres",
            "{name: pg.prod, namespace: shop}",
            SPEC,
            "bad.yaml: Postgres shop/pg.prod: metadata.name: \"pg.prod\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        object(
            "a namespace that is two",
            "Postgres",
            "{name: pg, namespace: shop.prod}",
            SPEC,
            "bad.yaml: Postgres shop.prod/pg: metadata.namespace: \"shop.prod\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        object(
            "a kind in small letters",
            "postgres",
            "{name: pg, namespace: shop}",
            SPEC,
            "bad.yaml: document 1: kind: \"postgres\", expected \"ServiceConnection\", \"KeyValueStore\", \"MySQL\", \"MySQLDatabase\", \"Postgres\", \"PostgresDatabase\", \"Application\", \"KubernetesCluster\", \"TunnelGateway\" or \"TunnelNode\"; did you mean \"Postgres\"?",
        ),
    ]
}

fn services() -> Vec<Case> {
    vec![
        raw(
            "a Service that others have",
            "
apiVersion: v1
kind: Service
metadata: {name: postgres-bad, namespace: shop}
spec: {clusterIP: 10.96.0.7}
---
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: bad, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
",
            "bad.yaml: Postgres shop/bad: metadata.name: Service shop/postgres-bad exists already and is not of this Postgres, expected a free name",
        ),
        object(
            "a kind of Service of others",
            "Service",
            "{name: web, namespace: shop}",
            "{}",
            "bad.yaml: Service shop/web: kind: \"Service\" of enforcer.dev/v1alpha1 is not used here",
        ),
    ]
}

fn twice() -> Vec<Case> {
    vec![
        object(
            "the endpoint of another gateway",
            "TunnelGateway",
            "{name: zz-1}",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, endpoints: ['203.0.113.1:51820']}",
            "bad.yaml: TunnelGateway zz-1: spec.endpoints: 203.0.113.1:51820 is the endpoint of TunnelGateway eu-1, expected one of its own",
        ),
        raw(
            "the node of another",
            "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {name: host-1}
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, cluster: blue}
---
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {name: rogue}
spec: {publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=, cluster: blue, node: host-1}
",
            "bad.yaml: TunnelNode rogue: spec.node: \"host-1\" of cluster \"blue\" is the node of TunnelNode host-1 already, expected a node of its own",
        ),
    ]
}
