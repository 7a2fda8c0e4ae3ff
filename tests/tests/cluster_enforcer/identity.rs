//! A pod is itself, whatever address it has and whoever had it before.

use enforcer_tests::{
    cluster::{
        enforcer::Installed,
        pods::{Pod, machine},
    },
    lab::{query::Answer, wait},
};
use serde_json::{Value, json};

use crate::world::{self, HOST, Like};

fn address(status: &Value) -> String {
    status["podIP"].as_str().expect("it has an address").to_owned()
}

/// A pod with this address, which nobody is to have any more, in this phase.
fn pod_at(world: &'static Installed, wanted: &str, app: &str, spec: &Value, phase: &str) -> Pod<'static> {
    let (net, last) = wanted.rsplit_once('.').expect("IPv4");
    let before = last.parse::<u8>().expect("a number") - 1;
    let dir = "/var/lib/cni/networks/pods";
    let is_free = || world.cluster.on_node("test", &["!", "-e", &format!("{dir}/{wanted}")]).is_ok();
    // A sandbox that kubelet made in between takes it.
    for _ in 0..5 {
        wait::for_true("the address is given back", is_free).expect("it is free");
        // The plugin gives out the one after the last.
        let script = format!("printf {net}.{before} >{dir}/last_reserved_ip.0");
        world.cluster.on_node("sh", &["-c", &script]).expect("the node runs it");
        let name = format!("{app}-{}", phase.to_lowercase());
        let pod = world::start(world, &name, "shop", app, spec.clone()).expect("it is made");
        if address(&pod.wait(phase).expect(phase)) == wanted {
            return pod;
        }
        pod.delete().expect("it goes");
    }
    panic!("no pod gets {wanted}");
}

#[test]
fn a_container_that_is_started_again_in_its_pod_keeps_the_grant() {
    let Some((world, _turn)) = world::shared() else { return };
    let pod = world::pod(world, "again", "web", Like::default()).expect("it runs");
    world::wait_for(&pod, &Answer::Works).expect("it is granted");
    let before = address(&pod.get().expect("it is there")["status"]);

    // Whether the command sees its own end is a matter of luck.
    pod.run(&["kill", "-TERM", "1"]).expect("it is told to end");
    wait::for_true("the container runs again", || {
        pod.get().is_ok_and(|pod| {
            let container = &pod["status"]["containerStatuses"][0];
            container["restartCount"] == 1 && container["ready"] == true
        })
    })
    .expect("it does");

    assert_eq!(address(&pod.get().expect("it is there")["status"]), before);
    world::wait_for(&pod, &Answer::Works).expect("it is granted still");
}

#[test]
fn a_pod_with_the_address_of_one_that_has_gone_or_ended_has_its_own_rights() {
    let Some((world, _turn)) = world::alone() else { return };
    let waiting = machine(world::WAIT).expect("the lab is built");
    let first = world::pod(world, "first", "web", Like::default()).expect("it runs");
    world::wait_for(&first, &Answer::Works).expect("it is granted");
    let of_first = address(&first.get().expect("it is there")["status"]);
    first.delete().expect("it goes");

    // Where the granted one was, somebody who is not.
    let second = pod_at(world, &of_first, "stranger", &waiting, "Running");
    assert_eq!(second.query(HOST).expect("psql runs"), Answer::NotPermitted);
    second.delete().expect("it goes");

    // One that has ended keeps the address in its status, and has it no more.
    let mut ends = machine(&["true"]).expect("the lab is built");
    ends["restartPolicy"] = json!("Never");
    let ended = pod_at(world, &of_first, "stranger", &ends, "Succeeded");
    let last = pod_at(world, &of_first, "web", &waiting, "Running");
    world::wait_for(&last, &Answer::Works).expect("the granted one has its grant");
    assert_eq!(address(&ended.get().expect("it is there")["status"]), of_first);
}
