//! Gateways that are gone and return, days without traffic, and more gateways than one.

use std::{collections::BTreeMap, net::SocketAddr};

use enforcer_tests::lab::{
    Lab, Place, command,
    network::{BACKEND_SIDE4, ip},
    query::Family,
    wait,
};

use crate::{
    held::{self, Held, TCP_PORT, UDP_PORT, soon},
    maps, second,
    shared::{Turn, lab, probe},
};

fn ready() -> Turn {
    let mut lab = lab();
    held::serve(&mut lab);
    lab
}

/// Whether a sender gets told that the host is unreachable; one packet a second goes out as a probe and waits.
fn is_unreachable(place: &Place, mode: &str, to: SocketAddr) -> bool {
    let (lab, to) = (env!("CARGO_BIN_EXE_enforcer-lab"), to.to_string());
    let words = match mode {
        "connected" => format!("hold-udp {to}"),
        "datagram" => format!("udp-ask {to} hello"),
        _ => format!("tcp-connect {to}"),
    };
    let clients = format!("for i in 1 2 3; do timeout 2 {lab} {words} & done; wait");
    let said = place.run("sh", &["-c", &clients]).expect("the clients start").said();
    said.contains("No route to host") || said.contains("HostUnreachable")
}

/// In a pod's namespace, but outside of the cgroups that the connect hooks apply to.
fn without_hooks(lab: &Lab, pod: &str) -> Place {
    Place { cgroup: lab.id.tools(), ..lab.place(pod) }
}

#[test]
fn a_gateway_that_is_cut_off_is_told_to_everybody_and_its_return_needs_nobody() {
    let lab = ready();
    let lan = lab.id.netns("lan");
    let services: Vec<SocketAddr> = Family::ALL.map(|family| held::address(&lab, family, TCP_PORT)).to_vec();
    let mut sessions: Vec<Held> = services
        .iter()
        .enumerate()
        .map(|(number, to)| Held::open(&lab, &lab.place("cart"), *to, "poke", &format!("through-{number}")))
        .collect();
    ip(&lan, "link set gw0 down").expect("the gateway is cut off");
    let mut senders = Vec::new();
    for service in services {
        let udp = SocketAddr::new(service.ip(), UDP_PORT);
        for (name, place) in [
            ("a pod", lab.place("cart")),
            ("no hooks", without_hooks(&lab, "cart")),
            ("the host", lab.place("hostnet")),
        ] {
            senders.push((name, place.clone(), "tcp", service));
            senders.push((name, place.clone(), "connected", udp));
            // A sender of single datagrams is told by a hook or not at all.
            if name != "no hooks" {
                senders.push((name, place, "datagram", udp));
            }
        }
    }
    let told = wait::for_true("everybody is told", || {
        senders.retain(|(_, place, mode, to)| !is_unreachable(place, mode, *to));
        senders.is_empty()
    });
    ip(&lan, "link set gw0 up").expect("the gateway is back");
    told.unwrap_or_else(|err| panic!("{err:#}: {senders:?}"));
    wait::for_true("connects work again", || {
        Family::ALL.iter().all(|family| {
            let to = held::address(&lab, *family, TCP_PORT).to_string();
            probe(&lab, "cart", &["tcp-connect", &to]).success
        })
    })
    .expect("the return is noticed");
    for session in &mut sessions {
        assert!(session.is_open(), "{} lived through it: {}", session.tag, lab.log(&session.tag));
    }
}

#[test]
fn a_tunnel_netns_that_somebody_deletes_is_made_anew_and_sessions_go_on() {
    let mut lab = ready();
    let services: Vec<SocketAddr> = Family::ALL.map(|family| held::address(&lab, family, TCP_PORT)).to_vec();
    let mut sessions: Vec<Held> = services
        .iter()
        .enumerate()
        .map(|(number, to)| Held::open(&lab, &lab.place("cart"), *to, "poke", &format!("anew-{number}")))
        .collect();
    // The tunnel's process holds on to the old one, and with it to a device that nobody will use again.
    let netns = lab.tunnel_netns();
    command::run("ip", &["netns", "delete", &netns]).expect("it is deleted");
    // Until somebody looks, everything goes on through the old one.
    let there = || command::run("ip", &["-n", &netns, "link", "show", "tunnel0"]).is_ok();
    wait::for_true("there is another", there).expect("the agent makes it anew");
    wait::for_true("connects work again", || {
        services.iter().all(|to| probe(&lab, "cart", &["tcp-connect", &to.to_string()]).success)
    })
    .expect("everything is made anew");
    lab.wait_ready().expect("everything is ready again");
    for session in &mut sessions {
        assert!(session.is_open(), "{} lived through it: {}", session.tag, lab.log(&session.tag));
    }
}

/// A day has no other clocks than these: flows (26 hours at most), which are over here at once at both ends, and those of
/// WireGuard (3 minutes), which run on because keepalives do not stop; the long test waits for them.
#[test]
fn after_a_day_without_a_packet_the_first_connect_works_and_old_sessions_are_told() {
    let lab = ready();
    for family in Family::ALL {
        let service = held::address(&lab, family, TCP_PORT);
        let mut idle =
            Held::open(&lab, &lab.place("cart"), service, "poke", &format!("old-{}", family.name()));
        maps::let_flows_pass_away(&lab);
        let first = probe(&lab, "cart", &["tcp-connect", &service.to_string()]);
        assert!(first.success && first.stdout.trim() == "0", "the first connect: {}", first.said());
        assert_eq!(idle.end(&lab).as_deref(), Some("ConnectionReset"), "{}", idle.tag);
    }
}

#[test]
#[ignore = "long: WireGuard gives a session up after three minutes"]
fn after_three_idle_minutes_the_first_connect_works() {
    let lab = ready();
    let service = held::address(&lab, Family::V4, TCP_PORT).to_string();
    assert!(probe(&lab, "cart", &["tcp-connect", &service]).success, "it works before");
    std::thread::sleep(std::time::Duration::from_secs(200));
    let first = probe(&lab, "cart", &["tcp-connect", &service]);
    assert!(first.success && first.stdout.trim() == "0", "the first connect: {}", first.said());
}

/// Opens sessions until each gateway has some; returns them by gateway.
fn sessions(lab: &Lab, service: SocketAddr, tag: &str) -> BTreeMap<String, Vec<Held>> {
    let mut by_gateway: BTreeMap<String, Vec<Held>> = BTreeMap::new();
    for number in 0..64 {
        let held = Held::open(lab, &lab.place("cart"), service, "poke", &format!("{tag}-{number}"));
        by_gateway.entry(held.through(lab)).or_default().push(held);
        if by_gateway.len() == 2 && by_gateway.values().all(|held| held.len() > 1) {
            break;
        }
    }
    by_gateway
}

#[test]
fn of_two_gateways_one_may_die_and_return() {
    let mut lab = ready();
    second::start(&mut lab);
    let both = [lab.id.gateway(), second::name(&lab)];
    held::destination(&lab, "held", &[&both[0], &both[1]], TCP_PORT);
    let service = held::address(&lab, Family::V4, TCP_PORT);
    // Both have to know the grant before new connections can be spread.
    wait::for_true("both have acknowledged", || {
        maps::grants(&lab)
            .iter()
            .any(|(key, grant)| key.port.get() == TCP_PORT && grant.gateways.count_ones() == 2)
    })
    .unwrap_or_else(|err| panic!("{err:#}: {:?}", maps::grants(&lab)));
    let mut before = sessions(&lab, service, "before");
    let names: Vec<&str> = before.keys().map(String::as_str).collect();
    assert_eq!(names, [BACKEND_SIDE4, second::SIDE4], "new connections are spread");

    let lan = lab.id.netns("lan");
    ip(&lan, &format!("link set {} down", second::PORT)).expect("one is cut off");
    let mut in_a_row = Vec::new();
    wait::for_true("new connections go through the other", || {
        let next =
            Held::open(&lab, &lab.place("cart"), service, "poke", &format!("during-{}", in_a_row.len()));
        if next.through(&lab) != BACKEND_SIDE4 {
            in_a_row.clear();
        }
        in_a_row.push(next);
        in_a_row.len() >= 6
    })
    .expect("the loss of one is noticed");
    for held in before.get_mut(BACKEND_SIDE4).into_iter().flatten().chain(&mut in_a_row) {
        assert!(held.is_open(), "{} goes through the survivor: {}", held.tag, lab.log(&held.tag));
    }
    ip(&lan, &format!("link set {} up", second::PORT)).expect("it is back");
    let after = wait::until("new connections are spread again", || {
        let after = sessions(&lab, service, "after");
        (after.len() == 2).then_some(after)
    });
    assert!(after.is_ok(), "its return is noticed");
    for held in before.values_mut().flatten() {
        assert!(held.is_open(), "{} lived through it: {}", held.tag, lab.log(&held.tag));
    }
    // Without the second gateway its connections end, and those of the first do not.
    held::destination(&lab, "held", &[&both[0]], TCP_PORT);
    let gone = before.remove(second::SIDE4).unwrap_or_default();
    second::end(&mut lab);
    for mut held in gone {
        let end = soon(|| held.end(&lab));
        assert_eq!(end.as_deref(), Some("ConnectionReset"), "{}", held.tag);
    }
    for held in before.values_mut().flatten() {
        assert!(held.is_open(), "{}: {}", held.tag, lab.log(&held.tag));
    }
}
