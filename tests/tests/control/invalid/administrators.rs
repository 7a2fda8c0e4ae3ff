//! The table of what administrators and agents write.

#![expect(clippy::too_many_lines, reason = "a table is read as one")]

use enforcer::model::Kind;

use super::{
    Case,
    Told::{self, Invalid, Refused},
};

pub fn all() -> Vec<Case> {
    gateways().into_iter().chain(nodes()).collect()
}

fn gateway(name: &'static str, spec: &str, told: Told) -> Case {
    Case::new(Kind::TunnelGateway, name, spec, told)
}

/// With a key and an endpoint that are right.
fn with(name: &'static str, more: &str, told: Told) -> Case {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=";
    gateway(name, &format!("{{publicKey: {key}, endpoints: ['203.0.113.2:51820'], {more}}}"), told)
}

fn gateways() -> Vec<Case> {
    vec![
        gateway("no-key", "{endpoints: ['203.0.113.2:51820']}", Refused("spec.publicKey: Required value")),
        gateway(
            "short-key",
            "{publicKey: AAAA, endpoints: ['203.0.113.2:51820']}",
            Invalid(
                r#"Invalid: spec.publicKey: "AAAA" has 3 bytes, expected 32 bytes in base64 (44 characters)"#,
            ),
        ),
        gateway(
            "key-text",
            "{publicKey: my key, endpoints: ['203.0.113.2:51820']}",
            Invalid(
                r#"Invalid: spec.publicKey: "my key" is not base64, expected 32 bytes in base64 (44 characters)"#,
            ),
        ),
        gateway(
            "key-of-another",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=, endpoints: ['203.0.113.2:51820']}",
            Invalid(
                r#"DuplicateKey: spec.publicKey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=" is the key of TunnelGateway eu-1, expected a key of its own"#,
            ),
        ),
        gateway(
            "no-endpoint",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=, endpoints: []}",
            Invalid("Invalid: spec.endpoints: empty, expected ADDRESS:PORT of the tunnel's UDP socket"),
        ),
        gateway(
            "portless",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=, endpoints: [203.0.113.2]}",
            Invalid(
                r#"Invalid: spec.endpoints[0]: "203.0.113.2" is not an endpoint, expected ADDRESS:PORT, like 203.0.113.1:51820"#,
            ),
        ),
        gateway(
            "everywhere",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=, endpoints: ['0.0.0.0:51820']}",
            Invalid(
                r#"Invalid: spec.endpoints[0]: "0.0.0.0:51820" cannot be reached, expected a host's address and a port above 0"#,
            ),
        ),
        gateway(
            "endpoint-of-another",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABE=, endpoints: ['203.0.113.1:51820']}",
            Invalid(
                "DuplicateEndpoint: spec.endpoints: 203.0.113.1:51820 is the endpoint of TunnelGateway eu-1, expected one of its own",
            ),
        ),
        with("mtu", "mtu: 576", Invalid("Invalid: spec.mtu: 576, expected 1280 to 65455")),
        with(
            "cidr",
            "allowedBackends: [{cidr: 192.0.2.0, ports: [{port: 1}]}]",
            Invalid(
                r#"Invalid: spec.allowedBackends[0].cidr: "192.0.2.0" is not a range of addresses, expected ADDRESS/LENGTH"#,
            ),
        ),
        with(
            "host-bits",
            "allowedBackends: [{cidr: 192.0.2.1/24, ports: [{port: 1}]}]",
            Invalid(
                r#"Invalid: spec.allowedBackends[0].cidr: "192.0.2.1/24" has bits behind its prefix, expected 192.0.2.0/24"#,
            ),
        ),
        with(
            "no-ports",
            "allowedBackends: [{cidr: 192.0.2.0/24, ports: []}]",
            Invalid("Invalid: spec.allowedBackends[0].ports: empty, expected at least one port"),
        ),
        with(
            "end-port",
            "allowedBackends: [{cidr: 192.0.2.0/24, ports: [{port: 10, endPort: 9}]}]",
            Invalid("Invalid: spec.allowedBackends[0].ports[0].endPort: 9, expected at least 10 (port)"),
        ),
        with(
            "mode",
            "sourceMode: Masquerade",
            Refused(
                r#"spec.sourceMode: Unsupported value: "Masquerade": supported values: "masquerade", "preserve""#,
            ),
        ),
        with(
            "guards-itself",
            "guardedCIDRs: [203.0.113.2/32]",
            Invalid(
                "Invalid: spec.guardedCIDRs[0]: 203.0.113.2/32 contains this gateway's endpoint 203.0.113.2:51820, expected a range without it",
            ),
        ),
        with(
            "guards-another",
            "guardedCIDRs: [198.51.100.0/30]",
            Invalid(
                "GuardedEndpoint: spec.guardedCIDRs[0]: 198.51.100.0/30 contains endpoint 198.51.100.1:51820 of TunnelGateway eu-2, expected a range without it",
            ),
        ),
        with(
            "guards-server",
            "guardedCIDRs: [10.96.0.1/32]",
            Invalid(
                "GuardedInfrastructure: spec.guardedCIDRs[0]: 10.96.0.1/32 contains 10.96.0.1, an address of the API server (Service default/kubernetes), expected a range without it",
            ),
        ),
        with(
            "guards-ours",
            "guardedCIDRs: [198.18.0.0/24]",
            Invalid(
                "Invalid: spec.guardedCIDRs[0]: 198.18.0.0/24 lies in our range 198.18.0.0/16, which is guarded anyway, expected a range outside of it",
            ),
        ),
        with(
            "guards-mapped",
            "guardedCIDRs: ['::ffff:192.0.2.0/120']",
            Invalid(
                r#"Invalid: spec.guardedCIDRs[0]: "::ffff:192.0.2.0/120" is IPv4 written as IPv6, expected it as IPv4"#,
            ),
        ),
    ]
}

fn nodes() -> Vec<Case> {
    let node = |name, spec, told| Case::new(Kind::TunnelNode, name, spec, told);
    vec![
        node("keyless", "{cluster: blue, node: n9}", Refused("spec.publicKey: Required value")),
        node(
            "short-node-key",
            "{publicKey: AAAA, cluster: blue, node: n9}",
            Invalid(
                r#"Invalid: spec.publicKey: "AAAA" has 3 bytes, expected 32 bytes in base64 (44 characters)"#,
            ),
        ),
        node(
            "same-key",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=, cluster: blue, node: n9}",
            Invalid(
                r#"DuplicateKey: spec.publicKey: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=" is the key of TunnelNode n1, expected a key of its own"#,
            ),
        ),
        node(
            "same-node",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=, cluster: blue, node: n1}",
            Invalid(
                r#"DuplicateNode: spec.node: "n1" of cluster "blue" is the node of TunnelNode n1 already, expected a node of its own"#,
            ),
        ),
    ]
}
