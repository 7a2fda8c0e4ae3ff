//! Nobody gets what is somebody else's.

use super::*;

fn node(name: &str, created: &str, last: char) -> String {
    format!(
        "
apiVersion: enforcer.dev/v1alpha1
kind: TunnelNode
metadata: {{name: {name}, creationTimestamp: {created}}}
spec: {{publicKey: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA{last}=, node: {name}}}
"
    )
}

#[test]
fn of_two_that_are_new_the_older_keeps_the_key() {
    let young = node("a-young", "2026-02-01T00:00:00Z", 'k');
    let old = node("z-old", "2026-01-01T00:00:00Z", 'k');
    let resolved = resolved(&[&young, &old]);
    assert_eq!(resolved.nodes.keys().collect::<Vec<_>>(), ["z-old"]);
    assert_eq!(
        condition(&resolved, Kind::TunnelNode, "a-young"),
        "False DuplicateKey: spec.publicKey: \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=\" \
         is the key of TunnelNode z-old, expected a key of its own"
    );
}

#[test]
fn an_address_that_a_state_file_gives_twice_stays_with_the_first() {
    let second = POSTGRES.replace("name: pg", "name: late");
    let documents = [
        GATEWAY,
        POSTGRES,
        &second,
        &node("n1", "2026-01-01T00:00:00Z", 'k'),
        &node("n2", "2026-01-02T00:00:00Z", 'o'),
    ];
    let snapshot = snapshot(&documents);
    let mut state = allocated(&snapshot);
    let key = |name| ObjectKey::new(Kind::Postgres, "shop", name);
    // The younger of each pair claims a part of what the older has.
    let older = state.services[&key("late")];
    state.services.get_mut(&key("pg")).unwrap().v4 = older.v4;
    let blocks = state.nodes["n1"].blocks.clone();
    state.nodes.get_mut("n2").unwrap().blocks = blocks;
    let resolved = resolve(&snapshot, &state);
    let destinations: Vec<_> = resolved.destinations.keys().map(|key| key.name.as_str()).collect();
    let nodes: Vec<_> = resolved.nodes.keys().map(String::as_str).collect();
    assert_eq!((destinations, nodes), (vec!["late"], vec!["n1"]));
    assert_eq!(
        condition(&resolved, Kind::Postgres, "pg"),
        "False DuplicateAddress: status.addresses: 198.18.0.1 is the address of Postgres shop/late, \
         expected one of its own"
    );
    assert_eq!(
        condition(&resolved, Kind::TunnelNode, "n2"),
        "False DuplicateAddress: status.addresses: 198.19.0.0/26 is the address of TunnelNode n1, \
         expected one of its own"
    );
}

#[test]
fn a_database_that_moves_to_another_instance_takes_no_grant_along() {
    let database = "
apiVersion: enforcer.dev/v1alpha1
kind: PostgresDatabase
metadata: {name: orders, namespace: shop}
spec: {instance: pg, database: orders}
";
    let web =
        connection("web", "", "").replace("kind: Postgres, name: pg", "kind: PostgresDatabase, name: orders");
    let second = POSTGRES.replace("name: pg", "name: secret");
    let documents = [GATEWAY, POSTGRES, &second, &web, database];
    let state = controller::step(&snapshot(&documents), &install(), "2026-01-01T00:00:00Z").state;
    let moved = database.replace("instance: pg", "instance: secret");
    let snapshot = snapshot(&[GATEWAY, POSTGRES, &second, &web, &moved]);
    let resolved = resolve(&snapshot, &controller::step(&snapshot, &state, "2026-01-02T00:00:00Z").state);
    assert_eq!(resolved.connections, []);
    assert_eq!(
        condition(&resolved, Kind::PostgresDatabase, "orders"),
        "False Immutable: spec: references are immutable: \"-> Postgres/secret\", \
         expected \"-> Postgres/pg\"; delete and create it anew"
    );
}

#[test]
fn a_range_that_is_right_is_guarded_also_where_another_is_wrong() {
    let guards = format!("{GATEWAY}  guardedCIDRs: [198.51.100.0/24, 192.0.2.0/24]\n");
    let host = "
apiVersion: v1
kind: Node
metadata: {name: host-1}
status: {addresses: [{type: InternalIP, address: 198.51.100.7}]}
";
    let resolved = resolved(&[&guards, host]);
    assert_eq!(
        condition(&resolved, Kind::TunnelGateway, "eu-1"),
        "False GuardedInfrastructure: spec.guardedCIDRs[0]: 198.51.100.0/24 contains 198.51.100.7, \
         an address of Node host-1, expected a range without it"
    );
    assert_eq!(resolved.listed_ranges, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(resolved.gateways, BTreeMap::new());
}

#[test]
fn the_older_application_keeps_the_name_of_a_connection() {
    let application = |name: &str, created: &str, service: &str| {
        format!(
            "
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {{name: {name}, namespace: shop, creationTimestamp: {created}}}
spec: {{podSelector: {{}}, services: [{{name: {service}, target: {{kind: Postgres, name: pg}}}}]}}
"
        )
    };
    let young = application("a", "2026-02-01T00:00:00Z", "b-c");
    let old = application("a-b", "2026-01-01T00:00:00Z", "c");
    let resolved = resolved(&[GATEWAY, POSTGRES, &young, &old]);
    assert_eq!(resolved.connections.len(), 1);
    assert_eq!(condition(&resolved, Kind::Application, "a-b"), "True Valid: ");
    assert_eq!(
        condition(&resolved, Kind::Application, "a"),
        "False NameTaken: spec.services[0].name: ServiceConnection shop/a-b-c exists already and is not of this \
         Application, expected a free name"
    );
}

#[test]
fn no_two_destinations_have_the_same_name_in_dns() {
    let names = ["a", "a-b", "b", "mysql-a", "postgres", "store-a", "value", "database-a"];
    let namespaces = ["shop", "a", "a-shop"];
    let mut hosts = BTreeMap::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| kind.is_instance()) {
        for key in namespaces.iter().flat_map(|ns| names.map(|name| ObjectKey::new(kind, *ns, name))) {
            let other = hosts.insert(host_name(&key), key.clone());
            assert_eq!(other, None, "{key} has the name of another");
        }
    }
}
