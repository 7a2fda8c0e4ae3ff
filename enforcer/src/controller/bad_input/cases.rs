//! The table: what is wrong, the file, and the message.

#![expect(clippy::too_many_lines, reason = "a table is read as one")]

use super::{Case, connection_with, destination, gateway, object, postgres, raw, source};

pub(super) fn all() -> Vec<Case> {
    files().into_iter().chain(connections()).chain(administrators()).collect()
}

fn files() -> Vec<Case> {
    vec![
        raw(
            "no YAML",
            "a: [",
            "bad.yaml: document 1: does not parse: did not find expected node content at line 2 column 1, while parsing a flow node",
        ),
        raw(
            "a mapping that ends early",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a,\n",
            "bad.yaml: document 1: does not parse: did not find expected node content at line 4 column 1, while parsing a flow node",
        ),
        raw(
            "a key twice",
            "apiVersion: v1\nkind: Pod\nkind: Pod\n",
            "bad.yaml: document 1: does not parse: duplicate entry with key \"kind\"",
        ),
        raw(
            "no object",
            "just words",
            "bad.yaml: document 1: \"just words\", expected apiVersion, kind, metadata and spec",
        ),
        raw(
            "no apiVersion",
            "kind: Pod\nmetadata: {name: a, namespace: shop}\n",
            "bad.yaml: document 1: apiVersion: missing, expected it to be there",
        ),
        raw(
            "no kind",
            "apiVersion: v1\nmetadata: {name: a, namespace: shop}\n",
            "bad.yaml: document 1: kind: missing, expected it to be there",
        ),
        raw(
            "a kind of others",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n",
            "bad.yaml: Deployment shop/web: kind: \"Deployment\" of apps/v1 is not used here",
        ),
        raw(
            "a version that is not ours",
            "apiVersion: enforcer.dev/v1\nkind: Postgres\nmetadata: {name: a, namespace: shop}\n",
            "bad.yaml: document 1: apiVersion: \"enforcer.dev/v1\", expected \"enforcer.dev/v1alpha1\" for a Postgres",
        ),
        raw(
            "a kind that is misspelled",
            "apiVersion: enforcer.dev/v1alpha1\nkind: ServiceConection\n",
            "bad.yaml: document 1: kind: \"ServiceConection\", expected \"ServiceConnection\", \"KeyValueStore\", \"MySQL\", \"MySQLDatabase\", \"Postgres\", \"PostgresDatabase\", \"Application\", \"KubernetesCluster\", \"TunnelGateway\" or \"TunnelNode\"; did you mean \"ServiceConnection\"?",
        ),
        raw(
            "no metadata",
            "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nspec: {}\n",
            "bad.yaml: document 1: metadata: missing, expected it to be there",
        ),
        raw(
            "no spec",
            "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {name: a, namespace: shop}\n",
            "bad.yaml: Postgres shop/a: spec: missing, expected it to be there",
        ),
        raw(
            "a label that is no string",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {version: 2}}\n",
            "bad.yaml: document 1: metadata.labels.version: 2, expected a string",
        ),
        raw(
            "a pod's address that is none",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nstatus: {podIPs: [{ip: 10.1.0.256}]}\n",
            "bad.yaml: Pod shop/a: status.podIPs[0].ip: \"10.1.0.256\", expected an IP address",
        ),
        raw(
            "the same object twice",
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
            "bad.yaml: Namespace shop: stands twice in this file, the first is used",
        ),
        object(
            "an object of another file",
            "Postgres",
            "{name: pg, namespace: shop}",
            "{gateways: [eu-1], endpoints: [{address: 192.0.2.11}]}",
            "bad.yaml: Postgres shop/pg: stands in a-good.yaml already, which is used",
        ),
        object(
            "no namespace",
            "Postgres",
            "{name: bad}",
            "{gateways: [eu-1], endpoints: []}",
            "bad.yaml: document 1: metadata.namespace: missing, expected the namespace of the Postgres",
        ),
        object(
            "a namespace too many",
            "TunnelNode",
            "{name: bad, namespace: shop}",
            "{publicKey: a}",
            "bad.yaml: document 1: metadata.namespace: \"shop\", expected none: a TunnelNode belongs to no namespace",
        ),
        object(
            "a misspelled field of metadata",
            "Postgres",
            "{name: bad, namespace: shop, lables: {}}",
            "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres shop/bad: metadata.lables: unknown field, expected \"annotations\", \"creationTimestamp\", \"deletionGracePeriodSeconds\", \"deletionTimestamp\", \"finalizers\", \"generateName\", \"generation\", \"labels\", \"managedFields\", \"name\", \"namespace\", \"ownerReferences\", \"resourceVersion\", \"selfLink\" or \"uid\"; did you mean \"labels\"?",
        ),
        object(
            "a name that DNS cannot have",
            "Postgres",
            "{name: My_DB, namespace: shop}",
            "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres shop/My_DB: metadata.name: \"My_DB\" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        object(
            "a name that is too long for DNS",
            "KeyValueStore",
            "{name: a123456789-123456789-123456789-123456789-123456789, namespace: shop}",
            "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: KeyValueStore shop/a123456789-123456789-123456789-123456789-123456789: metadata.name: \"a123456789-123456789-123456789-123456789-123456789\" has 50 characters, expected at most 49: a KeyValueStore's DNS name would be too long",
        ),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        connection_with(
            "a misspelled field",
            "validUntill: x",
            "bad.yaml: ServiceConnection shop/bad: spec.validUntill: unknown field, expected \"source\", \"destination\", \"ports\" or \"validUntil\"; did you mean \"validUntil\"?",
        ),
        connection_with(
            "no time",
            "validUntil: tomorrow",
            "bad.yaml: ServiceConnection shop/bad: spec.validUntil: \"tomorrow\" is not a time, expected RFC 3339, like 2027-01-01T00:00:00Z",
        ),
        connection_with(
            "port 0",
            "ports: [{port: 0}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports[0].port: 0 is not a port, expected 1 to 65535",
        ),
        connection_with(
            "a port that is no number",
            "ports: [{port: postgres}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports[0].port: \"postgres\", expected a port, 1 to 65535",
        ),
        connection_with(
            "a port that is too large",
            "ports: [{port: 70000}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports[0].port: 70000, expected a port, 1 to 65535",
        ),
        connection_with(
            "a protocol that is none",
            "ports: [{port: 5432, protocol: tcp}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports[0].protocol: \"tcp\", expected \"TCP\" or \"UDP\"; did you mean \"TCP\"?",
        ),
        connection_with(
            "a port that is not offered",
            "ports: [{port: 5433}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports[0]: TCP/5433 is not offered by Postgres pg, expected one of TCP/5432",
        ),
        connection_with(
            "a port twice",
            "ports: [{port: 5432}, {port: 5432, protocol: TCP}]",
            "bad.yaml: ServiceConnection shop/bad: spec.ports: TCP/5432 stands twice, expected once",
        ),
        connection_with(
            "a list that is none",
            "ports: 5432",
            "bad.yaml: ServiceConnection shop/bad: spec.ports: 5432, expected a list",
        ),
        source(
            "a misspelled kind of source",
            "{kind: KubernetsCluster, name: blue}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.kind: \"KubernetsCluster\", expected \"KubernetesCluster\" or \"Application\"; did you mean \"KubernetesCluster\"?",
        ),
        source(
            "an empty source name",
            "{kind: KubernetesCluster, name: ''}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.name: empty, expected the name of a cluster",
        ),
        source(
            "a source that is not there",
            "{kind: Application, name: ghost}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.name: no Application shop/ghost, expected one that exists",
        ),
        source(
            "an Application with a selector",
            "{kind: Application, name: app, podSelector: {}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector: not for an Application, which has its own podSelector and namespace",
        ),
        source(
            "a selector of another kind",
            "{kind: KubernetesCluster, name: blue, podSelector: {app: web}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector.app: unknown field, expected \"matchLabels\" or \"matchExpressions\"",
        ),
        source(
            "an operator that is none",
            "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: app, operator: Is, values: [a]}]}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector.matchExpressions[0].operator: \"Is\", expected \"In\", \"NotIn\", \"Exists\" or \"DoesNotExist\"; did you mean \"In\"?",
        ),
        source(
            "In without values",
            "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: app, operator: In}]}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector.matchExpressions[0].values: empty, expected at least one value for In and NotIn",
        ),
        source(
            "a key that no label has",
            "{kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {my app: web}}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector.matchLabels: \"my app\" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and .",
        ),
        source(
            "a value that no label has, which NotIn would let in",
            "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web shop]}]}}",
            "bad.yaml: ServiceConnection shop/bad: spec.source.podSelector.matchExpressions[0].values[0]: \"web shop\" is no value of a label, expected at most 63 letters, digits, -, _ and .",
        ),
        destination(
            "a destination that is not there",
            "{kind: Postgres, name: ghost}",
            "bad.yaml: ServiceConnection shop/bad: spec.destination: no Postgres shop/ghost, expected one that exists",
        ),
        destination(
            "a destination in another namespace",
            "{kind: Postgres, name: pg, namespace: prod}",
            "bad.yaml: ServiceConnection shop/bad: spec.destination.namespace: \"prod\", expected \"shop\": a destination is in the object's own namespace",
        ),
        destination(
            "a destination of a misspelled kind",
            "{kind: Postgress, name: pg}",
            "bad.yaml: ServiceConnection shop/bad: spec.destination.kind: \"Postgress\", expected \"KeyValueStore\", \"MySQL\", \"MySQLDatabase\", \"Postgres\" or \"PostgresDatabase\"; did you mean \"Postgres\"?",
        ),
        destination(
            "a destination that is none",
            "{kind: Pod, name: pg}",
            "bad.yaml: ServiceConnection shop/bad: spec.destination.kind: \"Pod\", expected KeyValueStore, MySQL, MySQLDatabase, Postgres or PostgresDatabase",
        ),
        destination(
            "no name of the destination",
            "{kind: Postgres}",
            "bad.yaml: ServiceConnection shop/bad: spec.destination.name: missing, expected it to be there",
        ),
        object(
            "a database of nothing",
            "PostgresDatabase",
            "{name: bad, namespace: shop}",
            "{instance: ghost, database: orders}",
            "bad.yaml: PostgresDatabase shop/bad: spec.instance: \"ghost\", expected the name of a Postgres in shop",
        ),
        object(
            "a database of another kind",
            "MySQLDatabase",
            "{name: bad, namespace: shop}",
            "{instance: pg, database: orders}",
            "bad.yaml: MySQLDatabase shop/bad: spec.instance: \"pg\", expected the name of a MySQL in shop",
        ),
        object(
            "a reference whose name is taken",
            "Application",
            "{name: app, namespace: shop}",
            "{podSelector: {}, services: [{name: taken, target: {kind: Postgres, name: pg}}]}",
            "bad.yaml: Application shop/app: spec.services[0].name: ServiceConnection shop/app-taken exists already and is not of this Application, expected a free name",
        ),
    ]
}

fn administrators() -> Vec<Case> {
    vec![
        postgres(
            "no gateway of that name",
            "{gateways: [eu-9], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres shop/bad: spec.gateways[0]: no TunnelGateway \"eu-9\", expected one that exists",
        ),
        postgres(
            "no gateway at all",
            "{gateways: [], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres shop/bad: spec.gateways: empty, expected the name of a TunnelGateway",
        ),
        postgres(
            "no endpoints",
            "{gateways: [eu-1]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints: missing, expected it to be there",
        ),
        postgres(
            "an endpoint that is no address",
            "{gateways: [eu-1], endpoints: [{address: db.example.org}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: \"db.example.org\", expected an IP address",
        ),
        postgres(
            "a loopback endpoint",
            "{gateways: [eu-1], endpoints: [{address: '::ffff:127.0.0.1'}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: ::ffff:127.0.0.1 is a loopback address, expected the address of a host behind the gateway",
        ),
        postgres(
            "a backend that is not allowed",
            "{gateways: [eu-1], endpoints: [{address: 198.51.100.7}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 198.51.100.7 with port TCP/5432 is not in the allowedBackends of TunnelGateway eu-1, expected one that is",
        ),
        postgres(
            "a backend port that is not allowed",
            "{gateways: [eu-1], ports: [{port: 5432, targetPort: 22}], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 192.0.2.10 with port TCP/22 is not in the allowedBackends of TunnelGateway eu-1, expected one that is",
        ),
        postgres(
            "the gateway as backend",
            "{gateways: [eu-1], endpoints: [{address: 203.0.113.1}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 203.0.113.1 is TunnelGateway eu-1 itself, expected a host behind a gateway",
        ),
        postgres(
            "our own range as backend",
            "{gateways: [eu-1], endpoints: [{address: 198.18.0.9}]}",
            "bad.yaml: Postgres shop/bad: spec.endpoints[0].address: 198.18.0.9 lies in our range 198.18.0.0/16, expected a host behind the gateway",
        ),
        object(
            "a namespace that is not allowed",
            "Postgres",
            "{name: bad, namespace: blog}",
            "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}",
            "bad.yaml: Postgres blog/bad: spec.gateways[0]: TunnelGateway eu-1 does not allow namespace \"blog\", expected it in its allowedNamespaces",
        ),
        gateway(
            "an endpoint without a port",
            "endpoints: [203.0.113.2]",
            "bad.yaml: TunnelGateway bad: spec.endpoints[0]: \"203.0.113.2\" is not an endpoint, expected ADDRESS:PORT, like 203.0.113.1:51820",
        ),
        gateway(
            "an MTU that IPv6 cannot have",
            "endpoints: ['203.0.113.2:51820'], mtu: 576",
            "bad.yaml: TunnelGateway bad: spec.mtu: 576, expected 1280 to 65455",
        ),
        gateway(
            "a range with bits behind its prefix",
            "endpoints: ['203.0.113.2:51820'], guardedCIDRs: [192.0.2.1/24]",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: \"192.0.2.1/24\" has bits behind its prefix, expected 192.0.2.0/24",
        ),
        gateway(
            "a guarded range with a gateway in it",
            "endpoints: ['198.51.100.1:51820'], guardedCIDRs: [203.0.113.0/24]",
            "bad.yaml: TunnelGateway bad: spec.guardedCIDRs[0]: 203.0.113.0/24 contains endpoint 203.0.113.1:51820 of TunnelGateway eu-1, expected a range without it",
        ),
        gateway(
            "ports that end before they begin",
            "endpoints: ['203.0.113.2:51820'], allowedBackends: [{cidr: 192.0.2.0/24, ports: [{port: 10, endPort: 9}]}]",
            "bad.yaml: TunnelGateway bad: spec.allowedBackends[0].ports[0].endPort: 9, expected at least 10 (port)",
        ),
        gateway(
            "a mode that is none",
            "endpoints: ['203.0.113.2:51820'], sourceMode: Masquerade",
            "bad.yaml: TunnelGateway bad: spec.sourceMode: \"Masquerade\", expected \"masquerade\" or \"preserve\"; did you mean \"masquerade\"?",
        ),
        object(
            "a key that is too short",
            "TunnelNode",
            "{name: bad}",
            "{publicKey: AAAA}",
            "bad.yaml: TunnelNode bad: spec.publicKey: \"AAAA\" has 3 bytes, expected 32 bytes in base64 (44 characters)",
        ),
        object(
            "a key that is no base64",
            "TunnelNode",
            "{name: bad}",
            "{publicKey: 'my key'}",
            "bad.yaml: TunnelNode bad: spec.publicKey: \"my key\" is not base64, expected 32 bytes in base64 (44 characters)",
        ),
        object(
            "a key of another",
            "TunnelNode",
            "{name: bad}",
            "{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=}",
            "bad.yaml: TunnelNode bad: spec.publicKey: \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\" is the key of TunnelGateway eu-1, expected a key of its own",
        ),
    ]
}
