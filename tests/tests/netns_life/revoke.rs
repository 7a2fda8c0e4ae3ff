//! Grants that go, and how both ends of what they carried are told.

use std::{net::SocketAddr, thread, time::Duration};

use enforcer_common::{
    Addr, Port,
    flow::{FlowKey, FlowState},
};
use enforcer_tests::lab::{Lab, Pod, Role, network::ip, query::Family, wait};

use crate::{
    held::{self, Held, Nested, TCP_PORT, UDP_PORT, soon},
    maps,
    shared::{Turn, lab},
};

/// What the order of an end has to be, seen at the moment at which the client was told. Either end of the tunnel may have
/// been the first to tell it.
fn assert_in_order(lab: &Lab, service: SocketAddr, what: &str) {
    let (ip, port) = (Addr::from(service.ip()), Port::new(service.port()));
    let is = |key: &FlowKey| key.service == ip && key.service_port == port;
    let ended = |state| FlowState::from_raw(state) == Some(FlowState::Revoking);
    let node = !maps::grants(lab).keys().any(|key| key.service == ip && key.port == port)
        && maps::flows(lab).iter().all(|(key, flow)| !is(key) || ended(flow.state));
    let gateway = !maps::gateway_grants(lab).keys().any(|key| key.service == ip && key.port == port)
        && maps::gateway_flows(lab).iter().all(|(key, flow)| !is(key) || ended(flow.state));
    assert!(node || gateway, "{what}: grants are gone and flows ended before anybody is told");
}

/// The shared lab with a server that holds.
fn ready() -> Turn {
    let mut lab = lab();
    held::serve(&mut lab);
    lab
}

#[test]
fn a_grant_that_goes_ends_what_is_idle_or_busy_in_a_pod_or_inside_one_at_both_ends() {
    let lab = ready();
    let nested = Nested::new(&lab, "cart");
    for family in Family::ALL {
        held::connection(&lab, "held", "held", "{matchLabels: {app: cart}}");
        let service = held::address(&lab, family, TCP_PORT);
        let mut all = Vec::new();
        for (name, place) in
            [("pod", lab.place("cart")), ("inner", nested.place()), ("host", lab.place("hostnet"))]
        {
            for mode in ["idle", "stream"] {
                let tag = format!("{name}-{mode}-{}", family.name());
                all.push(Held::open(&lab, &place, service, mode, &tag));
            }
        }
        lab.delete("connection-held.yaml").expect("the connection is removed");
        for held in &mut all {
            let end = held.end(&lab);
            assert_in_order(&lab, service, &held.tag);
            let told = matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted"));
            assert!(told, "{} is told: {end:?}", held.tag);
            assert_eq!(held.far_end(&lab).as_deref(), Some("ConnectionReset"), "the far end of {}", held.tag);
        }
    }
}

/// The last acknowledgement was lost before anybody of ours saw it, and its sender has nothing more to say.
#[test]
fn whoever_waits_is_told_also_where_its_last_acknowledgement_was_lost() {
    let lab = ready();
    let nested = Nested::new(&lab, "cart");
    for family in Family::ALL {
        held::connection(&lab, "held", "held", "{matchLabels: {app: cart}}");
        let service = held::address(&lab, family, TCP_PORT);
        let mut held = Held::open(&lab, &nested.place(), service, "idle", &format!("lost-{}", family.name()));
        let flow =
            |lab| maps::gateway_flows(lab).into_iter().find(|(key, _)| key.service == service.ip().into());
        let quiet = soon(|| {
            maps::forget_acknowledgements(&lab, service);
            let before = flow(&lab);
            thread::sleep(Duration::from_millis(300));
            (flow(&lab) == before).then_some(())
        });
        assert_eq!(quiet, Some(()), "nothing is under way any more");
        lab.delete("connection-held.yaml").expect("the connection is removed");
        assert_eq!(held.end(&lab).as_deref(), Some("ConnectionReset"), "{}", held.tag);
        assert_eq!(held.far_end(&lab).as_deref(), Some("ConnectionReset"), "the far end of {}", held.tag);
    }
}

#[test]
fn datagrams_of_a_grant_that_went_are_answered() {
    let lab = ready();
    let nested = Nested::new(&lab, "cart");
    for family in Family::ALL {
        held::connection(&lab, "held", "held", "{matchLabels: {app: cart}}");
        let service = held::address(&lab, family, UDP_PORT);
        let inner_end = if family == Family::V4 { "HostUnreachable" } else { "PermissionDenied" };
        let places = [("pod", lab.place("cart")), ("inner", nested.place())];
        let [mut pod, mut inner] = places.map(|(name, place)| {
            Held::open(&lab, &place, service, "udp", &format!("udp-{name}-{}", family.name()))
        });
        lab.delete("connection-held.yaml").expect("the connection is removed");
        assert_eq!(inner.end(&lab).as_deref(), Some(inner_end), "{}", inner.tag);
        // Its socket is destroyed, unless the answer to a datagram was there before.
        let end = pod.end(&lab);
        assert!(end.as_deref() == Some("ConnectionAborted") || end.as_deref() == Some(inner_end), "{end:?}");
    }
}

#[test]
fn a_peer_that_is_out_of_reach_does_not_keep_a_client_waiting() {
    let lab = ready();
    let nested = Nested::new(&lab, "cart");
    let service = held::address(&lab, Family::V4, TCP_PORT);
    for (what, netns, device) in
        [("database", lab.id.netns("svc"), "eth0"), ("gateway", lab.id.netns("lan"), "gw0")]
    {
        held::connection(&lab, "held", "held", "{matchLabels: {app: cart}}");
        let mut all = [("pod", lab.place("cart")), ("inner", nested.place())]
            .map(|(name, place)| Held::open(&lab, &place, service, "idle", &format!("no-{what}-{name}")));
        ip(&netns, &format!("link set {device} down")).expect("it is cut off");
        lab.delete("connection-held.yaml").expect("the connection is removed");
        let ends: Vec<Option<String>> = all.iter_mut().map(|held| held.end(&lab)).collect();
        ip(&netns, &format!("link set {device} up")).expect("it is back");
        if what == "database" {
            // The addresses of the other family went with the link.
            let address = enforcer_tests::lab::network::SERVER6;
            ip(&netns, &format!("addr replace {address}/64 dev eth0 nodad")).expect("it has its address");
        }
        assert_in_order(&lab, service, what);
        for (held, end) in all.iter().zip(ends) {
            let told = matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted"));
            assert!(told, "{} is told: {end:?}", held.tag);
        }
    }
    held::connection(&lab, "held", "held", "{matchLabels: {app: cart}}");
    drop(Held::open(&lab, &lab.place("cart"), service, "idle", "all-back"));
}

#[test]
fn what_an_agent_has_begun_to_end_when_it_died_the_next_one_ends() {
    let mut lab = ready();
    let service = held::address(&lab, Family::V4, TCP_PORT);
    let mut all = [("pod", lab.place("cart")), ("host", lab.place("hostnet"))]
        .map(|(name, place)| Held::open(&lab, &place, service, "idle", &format!("begun-{name}")));
    // Without a gateway nobody else can do it either.
    for role in [Role::Gateway, Role::Agent] {
        lab.kill(role).expect("the role is killed");
    }
    lab.delete("connection-held.yaml").expect("the connection is removed");
    maps::take_grants(&lab, maps::destination(&lab, service.ip()));
    for held in &mut all {
        assert!(held.is_open(), "{}: {}", held.tag, lab.log(&held.tag));
    }
    lab.start(Role::Agent).expect("the agent starts");
    // The verifier takes its time before there is an agent to end anything.
    wait::for_true("the agent answers", || lab.status(Role::Agent).is_ok()).expect("it is there");
    for held in &mut all {
        assert_eq!(held.end(&lab).as_deref(), Some("ConnectionReset"), "{}", held.tag);
    }
}

/// The end is of one pod's grant, or of one connection's: what else grants stays, and nobody notices.
#[test]
fn what_another_connection_or_another_pods_grant_covers_survives() {
    let mut lab = ready();
    if !lab.network.pods.iter().any(|pod| pod.name == "hostnet2") {
        let id = lab.id.clone();
        let pod = Pod::new("shop", "hostnet2", &[("app", "guest")]).host_network();
        lab.network.add_pod(&id, pod).expect("the pod is added");
    }
    lab.save_pod(lab.pod("hostnet2")).expect("the pod is saved");
    let service = held::address(&lab, Family::V4, TCP_PORT);
    let nested = Nested::new(&lab, "cart");
    held::connection(&lab, "twice", "held", "{matchLabels: {app: cart}}");
    held::connection(&lab, "guests", "held", "{matchLabels: {app: guest}}");
    let places = [
        ("kept-pod", lab.place("cart")),
        ("kept-inner", nested.place()),
        ("kept-host", lab.place("hostnet")),
    ];
    let mut kept = places.map(|(tag, place)| Held::open(&lab, &place, service, "idle", tag));
    // Sockets of both are in the host's tables, and nothing there tells whose is whose.
    let mut guest = Held::open(&lab, &lab.place("hostnet2"), service, "idle", "guest");
    wait::for_true("both connections are known", || {
        ["held", "twice"].iter().all(|name| lab.get("serviceconnection", name).is_ok())
    })
    .expect("both are there");

    lab.delete("connection-held.yaml").expect("the connection is removed");
    lab.delete("connection-guests.yaml").expect("the connection is removed");
    assert_eq!(guest.end(&lab).as_deref(), Some("ConnectionReset"));
    assert_eq!(guest.far_end(&lab).as_deref(), Some("ConnectionReset"));
    for held in &mut kept {
        assert!(held.is_open(), "{}: {}", held.tag, lab.log(&held.tag));
    }
    lab.delete("connection-twice.yaml").expect("the connection is removed");
    for held in &mut kept {
        let end = held.end(&lab);
        assert!(
            matches!(end.as_deref(), Some("ConnectionReset" | "ConnectionAborted")),
            "{}: {end:?}",
            held.tag
        );
    }
    lab.delete("pod-hostnet2.yaml").expect("the pod is removed");
    let gone = soon(|| {
        let status = lab.status(Role::Agent).ok()?;
        let pods = status["pods"].as_array()?;
        (!pods.iter().any(|pod| pod["pod"] == "shop/hostnet2")).then_some(())
    });
    assert_eq!(gone, Some(()), "the pod is forgotten");
}
