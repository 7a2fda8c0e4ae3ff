//! The controller of a cluster against a real API server.

use enforcer_tests::lab::wait;
use serde_json::{Value, json};

use crate::world::World;

#[test]
fn a_destination_gets_an_address_a_name_and_a_status() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready");

    let status = world.get("postgres", "pg").expect("it is there")["status"].clone();
    assert_eq!(status["addresses"], json!(["198.18.0.1"]));
    assert_eq!(status["privateNetworkingFQDN"], "postgres-pg.shop.svc.cluster.local");

    let service = world.get("service", "postgres-pg").expect("it has a Service");
    let spec = &service["spec"];
    assert_eq!((&spec["clusterIP"], &spec["selector"]), (&json!("None"), &Value::Null));
    assert_eq!(service["metadata"]["ownerReferences"][0]["kind"], "Postgres");
    let slice = world.get("endpointslice", "postgres-pg-v4").expect("it has a slice");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["198.18.0.1"]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "postgres-pg");
    assert_eq!(slice["ports"][0]["port"], 5432);

    let gateway = world.get("tunnelgateway", "eu-1").expect("it is there")["status"].clone();
    assert_eq!(gateway["number"], 1);
    let node = world.get("tunnelnode", "n1").expect("it is there")["status"].clone();
    assert_eq!(node["ranges"]["blocks"], json!(["198.19.0.0/26"]));
    assert_eq!(node["ranges"]["ula"], gateway["ranges"]["ula"]);
    assert_eq!(node["publicKey"], "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=");
}

#[test]
fn allocations_outlive_the_controller() {
    let (world, controller) = World::with_objects().expect("the world starts");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready");
    let statuses = || ["pg"].map(|name| world.get("postgres", name).expect("it is there")["status"].clone());
    let node = || world.get("tunnelnode", "n1").expect("it is there")["status"].clone();
    let before = (statuses(), node());
    controller.kill().expect("it is killed");

    let other =
        crate::world::OBJECTS.split("---").nth(3).expect("it is there").replace("name: pg", "name: two");
    world.apply(&other).expect("another one is made while nobody leads");
    let _controller = world.controller("second").expect("it starts");
    world.wait_for("postgres", "two", "Ready", "True Ready: ").expect("it is ready");

    assert_eq!((statuses(), node()), before);
    assert_eq!(
        world.get("postgres", "two").expect("it is there")["status"]["addresses"],
        json!(["198.18.0.2"])
    );
}

/// A field of the Lease; empty while it has none.
fn lease(world: &World, field: &str) -> String {
    let path = format!("jsonpath={{.spec.{field}}}");
    let args = ["get", "lease", "enforcer-controller", "--namespace", "enforcer-system", "--output", &path];
    world.plane.kubectl(&args).expect("there is a lease")
}

/// Whether a controller leads, as it says itself: `False AnotherLeads: `
fn leading(world: &World, name: &str) -> String {
    let status = world.status(name).unwrap_or_default();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == "Leading").unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    format!("{} {}: {}", text("status"), text("reason"), text("message"))
}

/// Another destination than the one that is there.
fn second_destination(world: &World) {
    let two =
        crate::world::OBJECTS.split("---").nth(3).expect("it is there").replace("name: pg", "name: two");
    world.apply(&two).expect("another one is made");
}

#[test]
fn one_controller_leads_and_the_next_takes_over_at_once_where_it_is_told_to_end() {
    let (world, first) = World::with_objects().expect("the world starts");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready");
    let second = world.controller("second").expect("it starts");
    let leads = |pid: u32| lease(&world, "holderIdentity").ends_with(&format!("-{pid}"));
    let (first_pid, second_pid) = (first.pid(), second.pid());
    let waits = || format!("False AnotherLeads: {} leads", lease(&world, "holderIdentity"));
    wait::for_true("the second waits", || leading(&world, "second") == waits())
        .unwrap_or_else(|err| panic!("{err}: {}", leading(&world, "second")));
    for _ in 0..3 {
        let before = lease(&world, "renewTime");
        wait::for_true("it is renewed", || lease(&world, "renewTime") != before).expect("it is renewed");
    }
    assert!(leads(first_pid), "{}", lease(&world, "holderIdentity"));
    first.stop().expect("it ends");
    assert!(!leads(first_pid), "it is given back: nobody waits until it would have ended");
    wait::for_true("the second leads", || leads(second_pid)).expect("it leads");
    assert_eq!(lease(&world, "leaseTransitions"), "1", "nobody has had it in between");
    second_destination(&world);
    world.wait_for("postgres", "two", "Ready", "True Ready: ").expect("the second works");
}

#[test]
fn a_controller_whose_lease_somebody_has_taken_writes_nothing_until_it_is_given_back() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready");
    let take = |holder: &str| {
        let change = json!({ "spec": { "holderIdentity": holder } }).to_string();
        let args =
            ["patch", "lease", "enforcer-controller", "--namespace", "enforcer-system", "--type", "merge"];
        world.plane.kubectl(&[&args[..], &["--patch", &change]].concat()).expect("it is written");
    };
    take("somebody-1");
    wait::for_true("it leads no more", || leading(&world, "controller").starts_with("False AnotherLeads: "))
        .unwrap_or_else(|err| panic!("{err}: {}", leading(&world, "controller")));
    second_destination(&world);
    for round in 2..6 {
        // Whoever has it renews it, each time as somebody else: it is the version that counts.
        take(&format!("somebody-{round}"));
        assert_eq!(world.condition("postgres", "two", "Valid"), "", "it is another's to write");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    take("");
    world.wait_for("postgres", "two", "Ready", "True Ready: ").expect("it leads again");
}

#[test]
fn a_name_that_exists_and_is_not_ours_is_left_alone_and_said() {
    let world = World::start().expect("the world starts");
    world.apply(crate::world::OBJECTS).expect("the objects are taken");
    world
        .plane
        .kubectl(&["create", "service", "clusterip", "postgres-pg", "--tcp=1:1", "--namespace", "shop"])
        .expect("made");
    let _controller = world.controller("controller").expect("it starts");
    let taken = "False NameTaken: Service shop/postgres-pg: not ours, expected the name to be free";
    world.wait_for("postgres", "pg", "Programmed", taken).expect("it is said");
    let service = world.get("service", "postgres-pg").expect("it is there");
    assert_eq!(service["metadata"]["ownerReferences"], Value::Null);
    world.plane.kubectl(&["delete", "service", "postgres-pg", "--namespace", "shop"]).expect("it goes");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("then the name is ours");
}
