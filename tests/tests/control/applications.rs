//! Applications: what is kept for their references.

use enforcer_tests::lab::wait;
use serde_json::{Value, json};

use crate::world::World;

const APPLICATION: &str = "
apiVersion: enforcer.dev/v1alpha1
kind: PostgresDatabase
metadata: {name: orders, namespace: shop}
spec: {instance: pg, database: orders eu}
---
apiVersion: enforcer.dev/v1alpha1
kind: Application
metadata: {name: cart, namespace: shop}
spec:
  podSelector: {matchLabels: {app: cart}}
  services:
  - {name: main-db, target: {kind: PostgresDatabase, name: orders}}
  - {name: raw, target: {kind: Postgres, name: pg}}
";

#[test]
fn an_application_has_its_connections_and_what_its_pods_connect_with() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.apply(APPLICATION).expect("it is made");
    let host = "postgres-pg.shop.svc.cluster.local";
    let data = || world.get("configmap", "cart-services").map(|map| map["data"].clone()).unwrap_or_default();
    let all = json!({
        "MAIN_DB_HOST": host,
        "MAIN_DB_PORT": "5432",
        "MAIN_DB_DATABASE": "orders eu",
        "MAIN_DB_URL": format!("postgresql://{host}:5432/orders%20eu"),
        "RAW_HOST": host,
        "RAW_PORT": "5432",
        "RAW_URL": format!("postgresql://{host}:5432"),
    });
    wait::for_true("the ConfigMap says all", || data() == all)
        .unwrap_or_else(|err| panic!("{err}: {}", data()));
    let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["name"].clone();
    for (name, kind) in [("cart-main-db", "PostgresDatabase"), ("cart-raw", "Postgres")] {
        world.wait_for("serviceconnection", name, "Ready", "True Ready: ").expect("it is ready");
        let connection = world.get("serviceconnection", name).expect("it is there");
        assert_eq!(owner(&connection), "cart");
        assert_eq!(connection["spec"]["destination"]["kind"], kind);
    }
    world.wait_for("application", "cart", "Ready", "True Ready: ").expect("it is ready");
    let status = world.get("application", "cart").expect("it is there")["status"].clone();
    assert_eq!(status["connections"], json!(["cart-main-db", "cart-raw"]));

    // A reference goes, another one leads elsewhere.
    let changed = APPLICATION.replace("  - {name: raw, target: {kind: Postgres, name: pg}}\n", "");
    let changed = changed.replace("{kind: PostgresDatabase, name: orders}", "{kind: Postgres, name: pg}");
    world.apply(&changed).expect("it is changed");
    wait::for_true("the connection goes", || world.get("serviceconnection", "cart-raw").is_err())
        .expect("it goes");
    let kind = || {
        let connection = world.get("serviceconnection", "cart-main-db").unwrap_or_default();
        connection["spec"]["destination"]["kind"].clone()
    };
    wait::for_true("the other is made anew", || kind() == "Postgres").expect("it is made anew");
    let less = json!({
        "MAIN_DB_HOST": host,
        "MAIN_DB_PORT": "5432",
        "MAIN_DB_URL": format!("postgresql://{host}:5432"),
    });
    wait::for_true("the ConfigMap says less", || data() == less)
        .unwrap_or_else(|err| panic!("{err}: {}", data()));
}

#[test]
fn a_connection_of_the_name_that_somebody_made_is_left_alone_and_said() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    let own = crate::world::OBJECTS
        .split("---")
        .nth(4)
        .expect("the connection")
        .replace("name: web,", "name: cart-raw,");
    world.apply(&own).expect("somebody makes it");
    world.apply(APPLICATION).expect("it is made");
    let taken = "False NameTaken: spec.services[1].name: ServiceConnection shop/cart-raw exists already and is not of this \
                 Application, expected a free name";
    world.wait_for("application", "cart", "Valid", taken).expect("it is said");
    let kept = world.get("serviceconnection", "cart-raw").expect("it is there");
    assert_eq!(kept["spec"]["source"]["kind"], "KubernetesCluster");
}
