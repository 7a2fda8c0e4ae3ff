//! What an application needs to know stands in its environment.

use enforcer_tests::{
    cluster::pods::machine,
    lab::{query::Answer, servers::postgres_dir},
    objects,
};
use serde_json::json;

use crate::world;

#[test]
fn an_application_connects_with_nothing_but_its_environment() {
    let Some((world, _turn)) = world::shared() else { return };
    world.apply(&objects::application("shop")).expect("it is taken");
    world.wait_for("application", "cart", "Ready", "True Ready: ").expect("its connection is there");
    let psql = postgres_dir().expect("it is installed").join("psql").display().to_string();
    let ask = format!("until {psql} -XAtqU app \"$DB_URL\" -c 'select 1'; do sleep 0.2; done");
    let mut spec = machine(&["sh", "-c", &ask]).expect("the lab is built");
    spec["restartPolicy"] = json!("Never");
    spec["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "cart-services" } }]);
    let pod = world::start(world, "cart", "shop", "cart", spec).expect("it is made");

    pod.wait("Succeeded").expect("it has asked the database");

    let said = pod.logs().expect("it has said something");
    assert_eq!(said.lines().last(), Some("1"), "{said}");
    let stranger =
        world::pod(world, "not-the-cart", "not-the-cart", world::Like::default()).expect("it runs");
    assert_eq!(stranger.query(world::HOST).expect("psql runs"), Answer::NotPermitted);
}
