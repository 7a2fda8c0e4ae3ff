//! Who reaches what: the granted, everyone else, and what is on the wire meanwhile.

use enforcer_tests::lab::{
    manifests::Service,
    query::{Answer, Family},
    wait,
};

use super::shared::{address, lab, probe};

#[test]
fn granted_pods_reach_every_service_over_both_families() {
    let lab = lab();
    for pod in ["cart", "hostnet"] {
        for service in Service::ALL {
            for family in Family::ALL {
                let answer = lab.place(pod).query(service, family).expect("the client starts");
                assert_eq!(answer, Answer::Works, "{pod} to {service:?} over {family:?}");
            }
        }
    }
}

#[test]
fn everyone_else_is_refused_at_connect_and_the_monitor_says_why() {
    let lab = lab();
    for (pod, full) in [("audit", "shop/audit"), ("stray", "other/stray"), ("plain", "shop/plain")] {
        for service in Service::ALL {
            for family in Family::ALL {
                let answer = lab.place(pod).query(service, family).expect("the client starts");
                assert_eq!(answer, Answer::NotPermitted, "{pod} to {service:?} over {family:?}");
            }
            let wanted = format!("{} shop/{}", service.kind(), service.name());
            let event = wait::until("the monitor shows it", || {
                lab.events().into_iter().find(|event| event.pod == full && event.destination_name == wanted)
            })
            .expect("the denial is told");
            assert_eq!(
                (event.kind.as_str(), event.reason.as_str(), event.process.as_str()),
                ("denied", "NoGrant", service.client()),
                "{event:?}"
            );
        }
    }
}

#[test]
fn a_process_of_no_pod_gets_no_answer() {
    let lab = lab();
    for family in Family::ALL {
        let answer = lab.system().query(Service::Postgres, family).expect("the client starts");
        assert_eq!(answer, Answer::Silence, "over {family:?}");
    }
}

#[test]
fn an_address_without_a_service_is_refused_to_the_granted_too() {
    let lab = lab();
    let mut known = address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address");
    known.set_ip([198, 18, 200, 200].into());
    let outcome = probe(&lab, "cart", &["tcp-connect", &known.to_string()]);
    assert!(outcome.was_not_permitted(), "an address that nobody has: {}", outcome.said());
    let mut port = address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address");
    port.set_port(22);
    let outcome = probe(&lab, "cart", &["tcp-connect", &port.to_string()]);
    assert!(outcome.was_not_permitted(), "a port that the service does not offer: {}", outcome.said());
}

#[test]
fn whatever_pods_try_the_underlay_shows_nothing_but_the_tunnel() {
    let lab = lab();
    let capture = lab.capture("paths").expect("tcpdump starts");
    let service = address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address");
    let other = address(&lab, "cart", Service::Postgres, Family::V6).expect("the service has an address");
    for pod in ["cart", "audit", "hostnet"] {
        for address in [service, other] {
            let _ = probe(&lab, pod, &["udp-ask", &address.to_string(), "in clear"]);
            let ip = address.ip().to_string();
            let ping = lab.place(pod).run("ping", &["-c1", "-W1", &ip]).expect("ping starts");
            assert!(!ping.success, "{pod} pings a guarded address: {}", ping.said());
        }
        let answer = lab.place(pod).query(Service::KeyValueStore, Family::V4).expect("the client starts");
        assert_eq!(answer == Answer::Works, pod != "audit", "{pod}: {answer}");
    }
    let judged = capture.finish().expect("the capture ends");
    assert_eq!(judged.foreign, Vec::<String>::new());
    assert!(
        !judged.contains(b"PONG") && !judged.contains(b"in clear"),
        "text of a service is readable on the wire"
    );
}

#[test]
fn denied_traffic_of_others_is_the_only_traffic_that_is_touched() {
    let lab = lab();
    for pod in ["cart", "plain", "hostnet"] {
        // The node's resolver: an address that nobody guards.
        let outcome = lab.place(pod).run("ping", &["-c1", "-W2", enforcer_tests::lab::network::DNS4]);
        assert!(outcome.expect("ping starts").success, "{pod} pings the node");
    }
}
