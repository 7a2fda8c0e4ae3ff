//! Pods that have a way past the hooks on the wire, as a second network plugin gives them one.

use enforcer_tests::{
    cluster::enforcer::Installed,
    lab::{network::GATEWAY4, query::Answer, wait},
};
use serde_json::Value;

use crate::world::{self, Like};

/// Runs `$2` with the name of the network namespace that has the address `$1`, as `$netns`.
const IN_POD: &str = r#"for path in /run/netns/cni-*; do
    netns=${path##*/}
    if ip -netns "$netns" -oneline -4 address show | grep --quiet --fixed-strings " $1/"; then
        eval "$2"
        exit
    fi
done
echo "no pod has $1" >&2
exit 1"#;

fn in_pod(world: &Installed, address: &str, script: &str) {
    world.cluster.on_node("sh", &["-ec", IN_POD, "sh", address, script]).expect("the node runs it");
}

#[test]
fn a_pod_whose_way_out_is_a_macvlan_is_said_and_not_permitted() {
    let Some((world, _turn)) = world::shared() else { return };
    world::grant(world, "beside").expect("it is granted");
    let pod = world::pod(world, "beside", "beside", Like::default()).expect("it runs");
    world::wait_for(&pod, &Answer::Works).expect("it is granted");
    let status = pod.get().expect("it is there")["status"].clone();
    let address = status["podIP"].as_str().expect("it has an address");
    let service = world.get("postgres", "pg").expect("it is there")["status"]["addresses"].clone();
    let is_v4 = |address: &&str| address.contains('.');
    let service = service.as_array().expect("it has some").iter().filter_map(Value::as_str).find(is_v4);
    let service = service.expect("one is IPv4");

    let script = format!(
        "ip link add beside0 link eth0 type macvlan mode bridge
         ip link set beside0 netns $netns name eth1
         ip -netns $netns address add 192.0.2.78/24 dev eth1
         ip -netns $netns link set eth1 up
         ip -netns $netns route add 0.0.0.0/1 via {GATEWAY4} dev eth1
         ip -netns $netns route add 128.0.0.0/1 via {GATEWAY4} dev eth1"
    );
    in_pod(world, address, &script);

    let why = "False NotGuardable: denied, because they have another way out: shop/beside: its way to the services is the \
               macvlan eth1, expected a veth of this node";
    world.wait_for("serviceconnection", "beside", "Guardable", why).expect("it is said");
    // By its address: names are beyond the macvlan as well.
    assert_eq!(pod.query(service).expect("psql runs"), Answer::NotPermitted);
    let event = wait::until("an event says so", || {
        let args = ["get", "events", "--namespace", "shop", "--output", "json"];
        let events: Value = serde_json::from_str(&world.cluster.kubectl(&args).ok()?).ok()?;
        let mut events = events["items"].as_array()?.iter();
        let event = events.find(|event| event["reason"] == "NotGuardable")?;
        Some(event["involvedObject"]["name"].clone())
    });
    assert_eq!(event.expect("an event"), "beside");

    in_pod(world, address, "ip -netns $netns link delete eth1");
    world::wait_for(&pod, &Answer::Works).expect("it is guarded and granted again");
    world::revoke(world, "beside").expect("it is deleted");
}
