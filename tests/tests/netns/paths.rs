//! Who reaches what: the granted, everyone else, and what is on the wire meanwhile.

use enforcer::control::MonitorEvent;
use enforcer_tests::lab::{
    Role,
    manifests::Service,
    query::{Answer, Family},
    wait,
};

use super::shared::{address, lab, probe};

/// Every service over both families from one pod.
fn reaches_everything(pod: &str) {
    let lab = lab();
    for service in Service::ALL {
        for family in Family::ALL {
            let answer = lab.place(pod).query(service, family).expect("the client starts");
            assert_eq!(answer, Answer::Works, "{pod} to {service:?} over {family:?}");
        }
    }
}

#[test]
fn a_granted_pod_reaches_every_service_over_both_families() {
    reaches_everything("cart");
}

#[test]
fn replies_reach_a_host_network_pod_in_both_families() {
    reaches_everything("hostnet");
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
            // Another test may have granted it for a while, and its sessions are told as well.
            let event = wait::until("the monitor shows it", || {
                let about = |event: &MonitorEvent| event.pod == full && event.destination_name == wanted;
                lab.events().into_iter().find(|event| event.kind == "denied" && about(event))
            })
            .expect("the denial is told");
            assert_eq!(
                (event.reason.as_str(), event.process.as_str()),
                ("NoGrant", service.client()),
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

#[test]
fn a_service_that_somebody_translates_to_a_guarded_address_leads_nowhere() {
    let lab = lab();
    let guarded = address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address");
    let rule = format!("PREROUTING -d 10.96.0.10 -p tcp -j DNAT --to-destination {guarded}");
    let node = lab.elsewhere("node");
    let iptables = |how: &str| {
        let line = format!("-t nat {how} {rule}");
        let outcome =
            node.run("iptables-legacy", &line.split(' ').collect::<Vec<_>>()).expect("iptables starts");
        assert!(outcome.success, "{}", outcome.said());
    };
    let capture = lab.capture("translated").expect("tcpdump starts");
    iptables("-A");
    // Also the granted pod: whose packet it was cannot be told any more.
    for pod in ["plain", "cart"] {
        let answer = lab.place(pod).query_at(Service::Postgres, "10.96.0.10").expect("the client starts");
        assert_eq!(answer, Answer::Silence, "{pod}");
    }
    iptables("-D");
    assert_eq!(capture.finish().expect("the capture ends").foreign, Vec::<String>::new());
    let status = lab.status(Role::Agent).expect("the agent answers");
    assert!(status["counters"]["drops"]["NoSocket"].as_u64() > Some(0), "{}", status["counters"]);
}

#[test]
fn a_gateway_that_does_not_answer_is_told_at_connect() {
    let mut lab = lab();
    lab.kill(Role::GatewayTunnel).expect("the tunnel is killed");
    let cart = lab.place("cart");
    let service =
        address(&lab, "cart", Service::Postgres, Family::V4).expect("the service has an address").to_string();
    // One packet a second goes out to see whether somebody answers: of three clients at once two are told.
    let probe = env!("CARGO_BIN_EXE_enforcer-lab");
    let clients = format!("for i in 1 2 3; do timeout 2 {probe} tcp-connect {service} & done; wait");
    let mut last = String::new();
    let told = wait::for_true("connects are refused as unreachable", || {
        last = cart.run("sh", &["-c", &clients]).expect("the clients start").said();
        last.contains("No route to host")
    });
    let status = lab.status(Role::Agent).expect("the agent answers");
    assert!(told.is_ok(), "the loss of the tunnel is noticed: {last} {status}");
    lab.start(Role::GatewayTunnel).expect("the tunnel starts");
    wait::for_true("connects work again", || {
        cart.query(Service::Postgres, Family::V4).is_ok_and(|answer| answer == Answer::Works)
    })
    .expect("the return of the tunnel is noticed");
}
