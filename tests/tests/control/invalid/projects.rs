//! The table of what members of a project write.

use enforcer::model::Kind;

use super::{
    Case,
    Told::{self, Invalid, Refused},
};

pub fn all() -> Vec<Case> {
    [connections(), instances(), others()].into_iter().flatten().collect()
}

const SOURCE: &str = "source: {kind: KubernetesCluster, name: blue}";
const DESTINATION: &str = "destination: {kind: Postgres, name: pg}";

fn connection(name: &'static str, spec: &str, told: Told) -> Case {
    Case::new(Kind::ServiceConnection, name, spec, told)
}

fn from(name: &'static str, source: &str, told: Told) -> Case {
    connection(name, &format!("{{source: {source}, {DESTINATION}}}"), told)
}

fn to(name: &'static str, destination: &str, told: Told) -> Case {
    connection(name, &format!("{{{SOURCE}, destination: {destination}}}"), told)
}

fn with(name: &'static str, more: &str, told: Told) -> Case {
    connection(name, &format!("{{{SOURCE}, {DESTINATION}, {more}}}"), told)
}

fn connections() -> Vec<Case> {
    vec![
        connection("no-destination", "{source: {kind: KubernetesCluster, name: blue}}", Refused("spec.destination: Required value")),
        to("unknown-destination", "{kind: Postgress, name: pg}", Refused(r#"spec.destination.kind: Unsupported value: "Postgress": supported values: "KeyValueStore", "MySQL", "MySQLDatabase", "Postgres", "PostgresDatabase""#)),
        to("elsewhere", "{kind: Postgres, name: pg, namespace: blog}", Invalid(r#"Invalid: spec.destination.namespace: "blog", expected "shop": a destination is in the object's own namespace"#)),
        to("ghost", "{kind: Postgres, name: ghost}", Invalid("DestinationNotFound: spec.destination: no Postgres shop/ghost, expected one that exists")),
        from("unknown-source", "{kind: Cluster, name: blue}", Refused(r#"spec.source.kind: Unsupported value: "Cluster": supported values: "KubernetesCluster", "Application""#)),
        from("no-application", "{kind: Application, name: ghost}", Invalid("SourceNotFound: spec.source.name: no Application shop/ghost, expected one that exists")),
        from("application-selector", "{kind: Application, name: till, podSelector: {matchLabels: {app: web}}}", Invalid("Invalid: spec.source.podSelector: not for an Application, which has its own podSelector and namespace")),
        from("no-values", "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: app, operator: In}]}}", Invalid("Invalid: spec.source.podSelector.matchExpressions[0].values: empty, expected at least one value for In and NotIn")),
        from("values", "{kind: KubernetesCluster, name: blue, namespaceSelector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}}", Invalid("Invalid: spec.source.namespaceSelector.matchExpressions[0].values: 1 given, expected none for Exists and DoesNotExist")),
        from("empty-key", "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: '-', operator: Exists}]}}", Invalid(r#"Invalid: spec.source.podSelector.matchExpressions[0].key: "-" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and ."#)),
        from("label-key", "{kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {'my app': web}}}", Invalid(r#"Invalid: spec.source.podSelector.matchLabels: "my app" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and ."#)),
        from("label-value", "{kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: 'web shop'}}}", Invalid(r#"Invalid: spec.source.podSelector.matchLabels.app: "web shop" is no value of a label, expected at most 63 letters, digits, -, _ and ."#)),
        from("operator", "{kind: KubernetesCluster, name: blue, podSelector: {matchExpressions: [{key: app, operator: Is, values: [a]}]}}", Refused(r#"spec.source.podSelector.matchExpressions.operator: Unsupported value: "Is": supported values: "In", "NotIn", "Exists", "DoesNotExist""#)),
        from("number-label", "{kind: KubernetesCluster, name: blue, podSelector: {matchLabels: {app: 7}}}", Refused(r#"spec.source.podSelector.matchLabels.app: Invalid value: "integer": spec.source.podSelector.matchLabels.app in body must be of type string: "integer""#)),
        with("port-zero", "ports: [{port: 0}]", Invalid("Invalid: spec.ports[0].port: 0 is not a port, expected 1 to 65535")),
        with("port-large", "ports: [{port: 70000}]", Refused("spec.ports.port: Invalid value: 70000: spec.ports.port in body should be less than or equal to 65535")),
        with("port-name", "ports: [{port: postgres}]", Refused(r#"spec.ports.port: Invalid value: "string": spec.ports.port in body must be of type integer: "string""#)),
        with("port-other", "ports: [{port: 5433}]", Invalid("PortNotOffered: spec.ports[0]: TCP/5433 is not offered by Postgres pg, expected one of TCP/5432")),
        with("port-twice", "ports: [{port: 5432}, {port: 5432}]", Invalid("Invalid: spec.ports: TCP/5432 stands twice, expected once")),
        with("protocol", "ports: [{port: 5432, protocol: SCTP}]", Refused(r#"spec.ports.protocol: Unsupported value: "SCTP": supported values: "TCP", "UDP""#)),
        with("tomorrow", "validUntil: tomorrow", Invalid(r#"Invalid: spec.validUntil: "tomorrow" is not a time, expected RFC 3339, like 2027-01-01T00:00:00Z"#)),
        connection("moved", "{source: {kind: KubernetesCluster, name: blue}, destination: {kind: Postgres, name: pg}}", Invalid(r#"Immutable: spec: references are immutable: "KubernetesCluster/blue -> Postgres/other", expected "KubernetesCluster/blue -> Postgres/pg"; delete and create it anew"#)).then("{destination: {name: other}}"),
        connection("moved-source", "{source: {kind: KubernetesCluster, name: blue}, destination: {kind: Postgres, name: pg}}", Invalid(r#"Immutable: spec: references are immutable: "KubernetesCluster/green -> Postgres/pg", expected "KubernetesCluster/blue -> Postgres/pg"; delete and create it anew"#)).then("{source: {name: green}}"),
    ]
}

fn postgres(name: &'static str, spec: &str, told: Told) -> Case {
    Case::new(Kind::Postgres, name, spec, told)
}

/// With one backend.
fn at(name: &'static str, address: &str, told: Told) -> Case {
    postgres(name, &format!("{{gateways: [eu-1], endpoints: [{{address: {address}}}]}}"), told)
}

fn instances() -> Vec<Case> {
    let mysql = |name, spec, told| Case::new(Kind::MySQL, name, spec, told);
    let store = |name, spec, told| Case::new(Kind::KeyValueStore, name, spec, told);
    vec![
        postgres("no-gateways", "{endpoints: [{address: 192.0.2.10}]}", Refused("spec.gateways: Required value")),
        postgres("empty-gateways", "{gateways: [], endpoints: [{address: 192.0.2.10}]}", Invalid("Invalid: spec.gateways: empty, expected the name of a TunnelGateway")),
        postgres("ghost-gateway", "{gateways: [eu-9], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"GatewayNotFound: spec.gateways[0]: no TunnelGateway "eu-9", expected one that exists"#)),
        postgres("gateway-twice", "{gateways: [eu-1, eu-1], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"Invalid: spec.gateways: "eu-1" stands twice, expected once"#)),
        postgres("no-endpoints", "{gateways: [eu-1]}", Refused("spec.endpoints: Required value")),
        postgres("empty-endpoints", "{gateways: [eu-1], endpoints: []}", Invalid("Invalid: spec.endpoints: empty, expected the address of a backend")),
        at("a-name", "db.example.org", Invalid(r#"Invalid: spec.endpoints[0].address: "db.example.org", expected an IP address"#)),
        at("loopback", "127.0.0.1", Invalid("Invalid: spec.endpoints[0].address: 127.0.0.1 is a loopback address, expected the address of a host behind the gateway")),
        at("metadata", "169.254.169.254", Invalid("Invalid: spec.endpoints[0].address: 169.254.169.254 is a link-local address, expected the address of a host behind the gateway")),
        at("itself", "203.0.113.1", Invalid("BackendNotAllowed: spec.endpoints[0].address: 203.0.113.1 is TunnelGateway eu-1 itself, expected a host behind a gateway")),
        at("our-range", "198.18.0.9", Invalid("BackendNotAllowed: spec.endpoints[0].address: 198.18.0.9 lies in our range 198.18.0.0/16, expected a host behind the gateway")),
        at("not-allowed", "198.51.100.7", Invalid("BackendNotAllowed: spec.endpoints[0].address: 198.51.100.7 with port TCP/5432 is not in the allowedBackends of TunnelGateway eu-1, expected one that is")),
        postgres("not-allowed-port", "{gateways: [eu-1], ports: [{port: 5432, targetPort: 22}], endpoints: [{address: 192.0.2.10}]}", Invalid("BackendNotAllowed: spec.endpoints[0].address: 192.0.2.10 with port TCP/22 is not in the allowedBackends of TunnelGateway eu-1, expected one that is")),
        postgres("endpoint-twice", "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}, {address: 192.0.2.10}]}", Invalid("Invalid: spec.endpoints: 192.0.2.10 stands twice, expected once")),
        postgres("other-namespace", "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"NamespaceNotAllowed: spec.gateways[0]: TunnelGateway eu-1 does not allow namespace "blog", expected it in its allowedNamespaces"#)).of("blog"),
        postgres("two.labels", "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"Invalid: metadata.name: "two.labels" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"#)),
        mysql("target-zero", "{gateways: [eu-1], ports: [{port: 3306, targetPort: 0}], endpoints: [{address: 192.0.2.10}]}", Invalid("Invalid: spec.ports[0].targetPort: 0 is not a port, expected 1 to 65535")),
        mysql("negative", "{gateways: [eu-1], ports: [{port: -1}], endpoints: [{address: 192.0.2.10}]}", Refused("spec.ports.port: Invalid value: -1: spec.ports.port in body should be greater than or equal to 0")),
        mysql("same-port", "{gateways: [eu-1], ports: [{port: 3306}, {port: 3306, targetPort: 3307}], endpoints: [{address: 192.0.2.10}]}", Invalid("Invalid: spec.ports: TCP/3306 stands twice, expected once")),
        store("same-name", "{gateways: [eu-1], ports: [{name: a, port: 1}, {name: a, port: 2}], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"Invalid: spec.ports: the name "a" stands twice, expected once"#)),
        store("a123456789-123456789-123456789-123456789-123456789", "{gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}", Invalid(r#"Invalid: metadata.name: "a123456789-123456789-123456789-123456789-123456789" has 50 characters, expected at most 49: a KeyValueStore's DNS name would be too long"#)),
    ]
}

fn others() -> Vec<Case> {
    let postgres = |name, spec, told| Case::new(Kind::PostgresDatabase, name, spec, told);
    let mysql = |name, spec, told| Case::new(Kind::MySQLDatabase, name, spec, told);
    let application = |name, spec, told| Case::new(Kind::Application, name, spec, told);
    let cluster = |name, spec, told| Case::new(Kind::KubernetesCluster, name, spec, told);
    vec![
        postgres("ghost-instance", "{instance: ghost, database: orders}", Invalid(r#"InstanceNotFound: spec.instance: "ghost", expected the name of a Postgres in shop"#)),
        postgres("no-database", "{instance: pg}", Refused("spec.database: Required value")),
        postgres("capitals", "{instance: PG, database: orders}", Invalid(r#"Invalid: spec.instance: "PG" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"#)),
        postgres("moved-database", "{instance: pg, database: orders}", Invalid(r#"Immutable: spec: references are immutable: "-> Postgres/other", expected "-> Postgres/pg"; delete and create it anew"#)).then("{instance: other}"),
        mysql("other-kind", "{instance: pg, database: orders}", Invalid(r#"InstanceNotFound: spec.instance: "pg", expected the name of a MySQL in shop"#)),
        application("no-selector", "{services: []}", Refused("spec.podSelector: Required value")),
        application("service-name", "{podSelector: {}, services: [{name: My_DB, target: {kind: Postgres, name: pg}}]}", Invalid(r#"Invalid: spec.services[0].name: "My_DB" is no DNS label, expected at most 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"#)),
        application("service-elsewhere", "{podSelector: {}, services: [{name: db, target: {kind: Postgres, name: pg, namespace: blog}}]}", Invalid(r#"Invalid: spec.services[0].target.namespace: "blog", expected "shop": a destination is in the object's own namespace"#)),
        application("service-pod", "{podSelector: {}, services: [{name: db, target: {kind: Pod, name: pg}}]}", Refused(r#"spec.services.target.kind: Unsupported value: "Pod": supported values: "KeyValueStore", "MySQL", "MySQLDatabase", "Postgres", "PostgresDatabase""#)),
        application("service-twice", "{podSelector: {}, services: [{name: db, target: {kind: Postgres, name: pg}}, {name: db, target: {kind: Postgres, name: other}}]}", Invalid(r#"Invalid: spec.services: "db" stands twice, expected once"#)),
        application("till", "{podSelector: {}, services: [{name: taken, target: {kind: Postgres, name: pg}}]}", Invalid("NameTaken: spec.services[0].name: ServiceConnection shop/till-taken exists already and is not of this Application, expected a free name")),
        application("app-selector", "{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: []}]}, services: []}", Invalid("Invalid: spec.podSelector.matchExpressions[0].values: empty, expected at least one value for In and NotIn")),
        // This server takes an empty text for null.
        cluster("nameless", "{clusterName: ''}", Refused(r#"spec.clusterName: Invalid value: "null": spec.clusterName in body must be of type string: "null""#)),
    ]
}
