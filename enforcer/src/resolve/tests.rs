//! Precedence, authority and immutability, as values.

use super::*;
use crate::{
    controller,
    controller::allocate,
    source::manifests,
    state::{ObjectStatus, REFERENCES},
};

mod authority;

const GATEWAY: &str = r#"
apiVersion: enforcer.dev/v1alpha1
kind: TunnelGateway
metadata: {name: eu-1}
spec:
  publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=
  endpoints: ["203.0.113.1:51820"]
  allowedNamespaces: [shop]
  allowedBackends: [{cidr: 0.0.0.0/0, ports: [{port: 1, endPort: 65535}]}]
"#;
const POSTGRES: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: Postgres
metadata: {name: pg, namespace: shop}
spec: {gateways: [eu-1], endpoints: [{address: 192.0.2.10}]}
";

fn connection(name: &str, created: &str, selector: &str) -> String {
    let created = if created.is_empty() { String::new() } else { format!(", creationTimestamp: {created}") };
    format!(
        "
apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata: {{name: {name}, namespace: shop{created}}}
spec:
  source: {{kind: KubernetesCluster, name: blue{selector}}}
  destination: {{kind: Postgres, name: pg}}
"
    )
}

fn snapshot(documents: &[&str]) -> Snapshot {
    let snapshot = manifests::read_text("test.yaml", &documents.join("---"));
    assert_eq!(snapshot.problems, []);
    snapshot
}

fn install() -> State {
    State::new(
        "fd00:1:2::/48".parse().unwrap(),
        "198.18.0.0/16".parse().unwrap(),
        "198.19.0.0/16".parse().unwrap(),
    )
}

fn allocated(snapshot: &Snapshot) -> State {
    allocate::allocate(snapshot, &BTreeMap::new(), &install()).0
}

fn resolved(documents: &[&str]) -> Resolved {
    let snapshot = snapshot(documents);
    resolve(&snapshot, &allocated(&snapshot))
}

fn condition(resolved: &Resolved, kind: Kind, name: &str) -> String {
    let namespace = if kind.namespaced() { "shop" } else { "" };
    let condition = &resolved.conditions[&ObjectKey::new(kind, namespace, name)][0];
    format!("{} {}: {}", condition.status, condition.reason, condition.message)
}

#[test]
fn a_destination_has_the_families_of_its_backends_and_the_ports_of_its_kind() {
    let resolved = resolved(&[GATEWAY, POSTGRES]);
    let key = ObjectKey::new(Kind::Postgres, "shop", "pg");
    let port = DestinationPort { protocol: Protocol::Tcp, port: 5432, target_port: 5432 };
    let expected = Destination {
        key: key.clone(),
        number: 1,
        v4: Some(Ipv4Addr::new(198, 18, 0, 1)),
        v6: None,
        ports: vec![port],
        gateways: vec!["eu-1".into()],
        endpoints: vec!["192.0.2.10".parse().unwrap()],
        fqdn: "postgres-pg.shop.svc.cluster.local".into(),
    };
    assert_eq!(resolved.destinations, BTreeMap::from([(key, Arc::new(expected))]));
    let ranges = |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ranges(&resolved.service_ranges), ["198.18.0.0/16", "fd00:1:2:2::/64"]);
    assert_eq!(ranges(&resolved.workload_ranges), ["198.19.0.0/16", "fd00:1:2:1000::/52", "fd00:1:2:3::/64"]);
}

#[test]
fn the_oldest_connection_is_charged_first_and_then_the_name_decides() {
    let young = connection("a-young", "2026-02-01T00:00:00Z", "");
    let old = connection("z-old", "2026-01-01T00:00:00+01:00", "");
    let (b, c) = (connection("b", "", ""), connection("c", "", ""));
    let resolved = resolved(&[GATEWAY, POSTGRES, &young, &c, &old, &b]);
    let names: Vec<_> = resolved.connections.iter().map(|connection| &connection.key.name).collect();
    assert_eq!(names, ["z-old", "a-young", "b", "c"]);
}

#[test]
fn other_namespaces_count_only_where_every_gateway_says_so() {
    let everywhere = connection("web", "", ", namespaceSelector: {}");
    let limit = |resolved: &Resolved| resolved.connections[0].only_namespace.clone();
    let strict = resolved(&[GATEWAY, POSTGRES, &everywhere]);
    assert_eq!(limit(&strict).as_deref(), Some("shop"));
    assert_eq!(
        condition(&strict, Kind::ServiceConnection, "web"),
        "True OwnNamespaceOnly: only pods of namespace \"shop\" are meant: \
         TunnelGateway eu-1 has no crossNamespaceSources"
    );

    let open = format!("{GATEWAY}  crossNamespaceSources: true\n");
    let wide = resolved(&[&open, POSTGRES, &everywhere]);
    assert_eq!(limit(&wide), None);
    assert_eq!(condition(&wide, Kind::ServiceConnection, "web"), "True Valid: ");

    let second =
        GATEWAY.replace("eu-1", "eu-2").replace("AAE=", "AAI=").replace("203.0.113.1:", "203.0.113.2:");
    let both = POSTGRES.replace("[eu-1]", "[eu-1, eu-2]");
    assert_eq!(limit(&resolved(&[&open, &second, &both, &everywhere])).as_deref(), Some("shop"));
}

#[test]
fn a_gateway_that_is_gone_leaves_the_others() {
    let both = POSTGRES.replace("[eu-1]", "[eu-9, eu-1]");
    let resolved = resolved(&[GATEWAY, &both]);
    assert_eq!(resolved.destinations.values().next().unwrap().gateways, ["eu-1"]);
    assert_eq!(
        condition(&resolved, Kind::Postgres, "pg"),
        "True SomeGatewaysNotFound: spec.gateways[0]: no TunnelGateway \"eu-9\", expected one that exists"
    );
}

#[test]
fn an_edited_reference_revokes_until_it_is_undone() {
    let web = connection("web", "", "");
    let snapshot = snapshot(&[GATEWAY, POSTGRES, &web]);
    let mut state = allocated(&snapshot);
    let recorded = |references: &str| {
        let fields = BTreeMap::from([(REFERENCES.to_owned(), references.into())]);
        Arc::new(ObjectStatus { conditions: Vec::new(), fields })
    };
    let key = ObjectKey::new(Kind::ServiceConnection, "shop", "web");
    state.status.insert(key.clone(), recorded("KubernetesCluster/blue -> Postgres/pg"));
    assert_eq!(resolve(&snapshot, &state).connections.len(), 1);
    state.status.insert(key, recorded("KubernetesCluster/blue -> Postgres/other"));
    let edited = resolve(&snapshot, &state);
    assert_eq!(edited.connections, []);
    assert_eq!(
        condition(&edited, Kind::ServiceConnection, "web"),
        "False Immutable: spec: references are immutable: \"KubernetesCluster/blue -> Postgres/pg\", \
         expected \"KubernetesCluster/blue -> Postgres/other\"; delete and create it anew"
    );
}

#[test]
fn references_of_an_application_become_connections_of_its_own_pods() {
    let application = "
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  services:
  - {name: orders, target: {kind: PostgresDatabase, name: orders}}
  - {name: nothing, target: {kind: MySQL, name: ghost}}
";
    let database = "
apiVersion: enforcer.dev/v1alpha1
kind: PostgresDatabase
metadata: {name: orders, namespace: shop}
spec: {instance: pg, database: orders}
";
    let resolved = resolved(&[GATEWAY, POSTGRES, application, database]);
    let expected = Connection {
        key: ObjectKey::new(Kind::ServiceConnection, "shop", "cart-orders"),
        created_unix_ns: u64::MAX,
        destination: ObjectKey::new(Kind::Postgres, "shop", "pg"),
        cluster: None,
        pod_selector: LabelSelector {
            match_labels: BTreeMap::from([("app".into(), "cart".into())]),
            match_expressions: Vec::new(),
        },
        namespace_selector: None,
        only_namespace: Some("shop".into()),
        ports: vec![DestinationPort { protocol: Protocol::Tcp, port: 5432, target_port: 5432 }],
        valid_until_unix_ns: None,
    };
    assert_eq!(resolved.connections, [Arc::new(expected)]);
    assert_eq!(
        condition(&resolved, Kind::Application, "cart"),
        "False DestinationNotFound: spec.services[1].target: no MySQL shop/ghost, expected one that exists"
    );
}

#[test]
fn fewer_ports_and_an_end_are_taken_over() {
    let ports = "ports: [{port: 5432}, {port: 9187, protocol: TCP, targetPort: 19187}], endpoints";
    let postgres = POSTGRES.replace("endpoints", ports);
    let web = format!(
        "{}  ports: [{{port: 9187}}]\n  validUntil: 1970-01-01T00:00:01.5Z\n",
        connection("web", "", "")
    );
    let resolved = resolved(&[GATEWAY, &postgres, &web]);
    let connection = &resolved.connections[0];
    let port = DestinationPort { protocol: Protocol::Tcp, port: 9187, target_port: 19187 };
    assert_eq!((&connection.ports, connection.valid_until_unix_ns), (&vec![port], Some(1_500_000_000)));
}

#[test]
fn a_public_key_stays_with_the_one_who_was_there_first() {
    let node = |name: &str| {
        format!(
            "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {{name: {name}}}
spec: {{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=}}
"
        )
    };
    let (old, new) = (node("z-old"), node("a-new"));
    let before = allocated(&snapshot(&[&old]));
    let both = snapshot(&[&old, &new]);
    let (state, _) = allocate::allocate(&both, &BTreeMap::new(), &before);
    let resolved = resolve(&both, &state);
    assert_eq!(resolved.nodes.keys().collect::<Vec<_>>(), ["z-old"]);
    assert_eq!(
        condition(&resolved, Kind::TunnelNode, "a-new"),
        "False DuplicateKey: spec.publicKey: \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=\" \
         is the key of TunnelNode z-old, expected a key of its own"
    );
}

#[test]
fn without_an_address_things_are_valid_and_wait() {
    let web = connection("web", "", "");
    let snapshot = snapshot(&[GATEWAY, POSTGRES, &web]);
    let mut state = allocated(&snapshot);
    state.services.clear();
    let waiting = resolve(&snapshot, &state);
    assert_eq!((&waiting.connections[..], &waiting.destinations), (&[][..], &BTreeMap::new()));
    for (kind, name) in [(Kind::ServiceConnection, "web"), (Kind::Postgres, "pg")] {
        assert_eq!(
            condition(&waiting, kind, name),
            "True WaitingForAddress: the controller has no address for Postgres shop/pg yet"
        );
    }
}

#[test]
fn a_cluster_is_what_its_object_calls_it_and_without_one_what_the_connection_says() {
    let connection = connection("web", "", "");
    let clusters = |documents: &[&str]| -> Vec<Option<String>> {
        let resolved = resolved(documents);
        resolved.connections.iter().map(|connection| connection.cluster.clone()).collect()
    };
    let cluster = "
apiVersion: enforcer.dev/v1alpha1
kind: KubernetesCluster
metadata: {name: blue, namespace: shop}
";
    let elsewhere = cluster.replace("shop", "blog") + "spec: {clusterName: blog-1}\n";
    let named = format!("{cluster}spec: {{clusterName: prod-7}}\n");
    assert_eq!(clusters(&[GATEWAY, POSTGRES, &connection]), [Some("blue".into())]);
    assert_eq!(clusters(&[GATEWAY, POSTGRES, &connection, cluster]), [Some("blue".into())]);
    assert_eq!(clusters(&[GATEWAY, POSTGRES, &connection, &elsewhere]), [Some("blue".into())]);
    assert_eq!(clusters(&[GATEWAY, POSTGRES, &connection, &named]), [Some("prod-7".into())]);
}
