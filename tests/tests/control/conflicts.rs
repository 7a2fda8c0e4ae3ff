//! Somebody else writes what is the controller's: it is put right, and nobody fights for ever.

use std::time::{Duration, Instant};

use enforcer_tests::lab::wait;
use serde_json::{Value, json};

use crate::world::World;

/// Requests that the controller has sent to write something.
fn sent(world: &World) -> u64 {
    let status = world.status("controller").expect("it answers");
    status["writes"]["sent"].as_u64().expect("it counts")
}

/// Waits until nothing was sent for two seconds, and returns how much was.
fn settled(world: &World) -> u64 {
    let mut last = (sent(world), Instant::now());
    wait::until("the controller has nothing left to write", || {
        let now = sent(world);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some(now)
    })
    .expect("it settles")
}

fn patch(world: &World, kind: &str, name: &str, part: &[&str], change: &Value) {
    let change = change.to_string();
    let args = ["patch", kind, name, "--namespace", "shop", "--type", "merge", "--patch", &change];
    world.plane.kubectl(&[&args, part].concat()).expect("whoever may do everything may do that");
}

/// What the controller answers for, without versions and who has written what when.
fn owned(world: &World) -> Value {
    let get = |kind, name| world.get(kind, name).unwrap_or_default();
    let (service, slice) = (get("service", "postgres-pg"), get("endpointslice", "postgres-pg-v4"));
    let of = |object: &Value| json!([object["metadata"]["labels"], object["metadata"]["ownerReferences"]]);
    json!({
        "status": [get("postgres", "pg")["status"], get("serviceconnection", "web")["status"], get("tunnelnode", "n1")["status"]],
        "service": [of(&service), service["spec"]["ports"], service["spec"]["selector"]],
        "slice": [of(&slice), slice["endpoints"], slice["ports"]],
    })
}

#[test]
fn what_somebody_else_writes_into_what_is_the_controllers_is_put_right_with_few_writes() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("serviceconnection", "web", "Ready", "True Ready: ").expect("it is ready");
    let before = settled(&world);
    let right = owned(&world);

    // kubectl of this version cannot write statuses, whose path is that of the object and a word.
    let mut pg = world.get("postgres", "pg").expect("it is there");
    pg["status"]["addresses"] = json!(["198.18.0.77"]);
    pg["status"]["privateNetworkingFQDN"] = json!("evil.example");
    pg["status"]["conditions"] =
        json!([{ "type": "Ready", "status": "False", "reason": "Mine", "message": "mine" }]);
    let path = "/apis/enforcer.dev/v1alpha1/namespaces/shop/postgreses/pg/status";
    world
        .plane
        .kubectl_with(&["replace", "--raw", path, "--filename", "-"], &pg.to_string())
        .expect("it is taken");
    patch(
        &world,
        "service",
        "postgres-pg",
        &[],
        &json!({ "spec": { "ports": [{ "name": "x", "port": 1 }] } }),
    );
    let stranger = json!([{ "addresses": ["192.0.2.66"], "conditions": { "ready": true } }]);
    patch(&world, "endpointslice", "postgres-pg-v4", &[], &json!({ "endpoints": stranger }));
    let put_right = || {
        wait::for_true("all of it is put right", || {
            let mut now = owned(&world);
            // When a condition became true is another time now.
            now["status"][0]["conditions"] = right["status"][0]["conditions"].clone();
            now == right
        })
        .unwrap_or_else(|err| panic!("{err}: {right:#} {:#}", owned(&world)));
        world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready again");
    };
    put_right();
    // Without our label it is not watched any more, and ours all the same.
    let no_label = json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": null } } });
    patch(&world, "service", "postgres-pg", &[], &no_label);
    put_right();
    world
        .plane
        .kubectl(&["delete", "endpointslice", "postgres-pg-v4", "--namespace", "shop"])
        .expect("it goes");
    put_right();
    let writes = settled(&world) - before;
    assert!(writes <= 20, "{writes} writes for five changes");
}

#[test]
fn the_controller_does_not_fight_for_ever_and_others_do_not_wait_for_it() {
    let (world, _controller) = World::with_objects().expect("the world starts");
    world.wait_for("postgres", "pg", "Ready", "True Ready: ").expect("it is ready");
    let before = settled(&world);
    let api = world.plane.api().expect("there is a client");
    let mine = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "postgres-pg", "namespace": "shop" },
        "spec": { "ports": [{ "name": "mine", "port": 1, "protocol": "TCP", "targetPort": 1 }] },
    });
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(12) {
        // Whoever comes between the server's reading and writing is refused, now and then.
        rounds += u32::from(api.change(&mine).is_ok());
        std::thread::sleep(Duration::from_millis(20));
    }
    let two =
        crate::world::OBJECTS.split("---").nth(3).expect("it is there").replace("name: pg", "name: two");
    world.apply(&two).expect("another one is made");
    world.wait_for("postgres", "two", "Ready", "True Ready: ").expect("others go on");
    let writes = sent(&world) - before;
    // At once, then after 1, 2, 4, 8 seconds; and statuses that tell of it, and the other object's own.
    assert!((3..=40).contains(&writes), "{writes} writes against {rounds}");
    let right =
        || world.get("service", "postgres-pg").unwrap_or_default()["spec"]["ports"][0]["port"] == 5432;
    wait::for_true("in the end it is right", right).expect("it is");
}
