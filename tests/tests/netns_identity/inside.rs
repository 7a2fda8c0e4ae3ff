//! More than one container, and more than one namespace, inside of a pod.

use std::fs;

use enforcer_tests::lab::{
    Lab, Place,
    command::run,
    manifests::Service,
    network::{add_netns, ip, sysctl},
    query::{Answer, Family},
    wait,
};

use crate::{
    shared::{address, lab},
    turn::comes_to,
};

#[test]
fn two_containers_of_one_namespace_are_one_pod() {
    let lab = lab();
    for (pod, wanted) in [("cart", Answer::Works), ("audit", Answer::NotPermitted)] {
        for part in ["app", "sidecar"] {
            let place = Place { cgroup: lab.pod(pod).cgroup.join(part), ..lab.place(pod) };
            fs::create_dir_all(&place.cgroup).expect("the cgroup is made");
            comes_to(&lab, &format!("{part} of {pod}"), &place, &wanted);
        }
        // Entered from elsewhere, as `kubectl debug` and nsenter do: the namespace says whose sockets they are.
        let place = Place { cgroup: lab.id.kube().join("system"), ..lab.place(pod) };
        comes_to(&lab, &format!("a visitor of {pod}"), &place, &wanted);
    }
}

/// A namespace behind a pod, which forwards for it; `translated`: with the pod's own address.
fn nested(lab: &Lab, pod: &str, number: u8, translated: bool) -> Place {
    let (outer, netns) = (lab.pod(pod).netns.clone(), lab.id.netns(&format!("in{number}")));
    add_netns(&netns).expect("the namespace is made");
    let lines = format!(
        "link add in{number} type veth peer name eth0 netns {netns}
         addr add 172.30.{number}.1/24 dev in{number}
         addr add fd30:{number}::1/64 dev in{number} nodad
         link set in{number} up"
    );
    ip(&outer, &lines).expect("the pod's end is made");
    let lines = format!(
        "addr add 172.30.{number}.2/24 dev eth0
         addr add fd30:{number}::2/64 dev eth0 nodad
         link set eth0 up
         route add default via 172.30.{number}.1
         -6 route add default via fd30:{number}::1"
    );
    ip(&netns, &lines).expect("the other end is made");
    sysctl(&outer, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]).expect("the pod forwards");
    if translated {
        for program in ["iptables-legacy", "ip6tables-legacy"] {
            let words = ["netns", "exec", &outer, program, "-t", "nat", "-A", "POSTROUTING", "-o", "eth0"];
            let words: Vec<&str> = words.into_iter().chain(["-j", "MASQUERADE"]).collect();
            run("ip", &words).expect("the pod translates");
        }
    }
    Place { netns, cgroup: lab.pod(pod).cgroup.clone() }
}

#[test]
fn what_a_pod_forwards_with_its_own_address_is_its_own_and_anything_else_is_spoofed() {
    let lab = lab();
    let cases = [
        ("cart", 1, true, Answer::Works),
        // Its sockets are nobody's, so nothing refuses them at connect; on the wire they are audit's.
        ("audit", 2, true, Answer::Silence),
        ("plain", 3, false, Answer::Silence),
    ];
    let places =
        cases.map(|(pod, number, translated, wanted)| (pod, nested(&lab, pod, number, translated), wanted));
    std::thread::scope(|scope| {
        for (pod, place, wanted) in &places {
            for family in Family::ALL {
                let service =
                    address(&lab, "cart", Service::KeyValueStore, family).expect("it has an address");
                scope.spawn(move || {
                    let answer = place.query_at(Service::KeyValueStore, &service.ip().to_string());
                    assert_eq!(answer.expect("the client starts"), *wanted, "inside {pod} over {family:?}");
                });
            }
        }
    });
    let status = wait::until("the drops are counted", || {
        let status = lab.status(enforcer_tests::lab::Role::Agent).ok()?;
        let drops = status["counters"]["drops"].clone();
        (drops["Spoofed"].as_u64() > Some(0) && drops["NoGrant"].as_u64() > Some(0)).then_some(drops)
    });
    assert!(status.is_ok(), "what is not translated is spoofed, and what is, is audit's");
}
