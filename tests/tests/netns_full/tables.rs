//! Tables so small that they are full: the new is denied, the old goes on, and it is said where people look.

use enforcer_tests::lab::{
    Lab, Pod, Role, Running,
    manifests::Service,
    query::{Answer, Family},
    wait,
};

/// Pods times services times families: what the first four of them need.
const GRANTS: u64 = 4 * 3 * 2;
const QUOTA: usize = 8;
const FLOWS: usize = 3 * QUOTA;

fn small() -> Lab {
    let cart = [("app", "cart")];
    let pods: Vec<Pod> = ["a", "b", "c", "d"].map(|name| Pod::new("shop", name, &cart)).into();
    let mut lab = Lab::new(&pods).expect("the lab comes up");
    lab.more.insert(
        Role::Agent.name(),
        format!("--grant-table {GRANTS} --flow-table {FLOWS} --flow-quota {QUOTA}"),
    );
    lab.start_servers().expect("the servers start");
    lab.save_tunnel_ends("").expect("the tunnel's ends are saved");
    lab.save_objects().expect("the objects are saved");
    for service in Service::ALL {
        lab.grant(service).expect("the grant is saved");
    }
    lab.start_roles().expect("the roles start");
    lab.wait_ready().expect("every grant is live");
    lab
}

fn answer(lab: &Lab, pod: &str, family: Family) -> Answer {
    lab.place(pod).query(Service::KeyValueStore, family).expect("the client starts")
}

#[test]
fn full_tables_deny_the_new_and_keep_the_old() {
    let mut lab = small();
    no_room_for_grants(&mut lab);
    let held = greedy(&lab);
    no_room_for_flows(&mut lab, held);
}

/// One more pod than there is room for.
fn no_room_for_grants(lab: &mut Lab) {
    let id = lab.id.clone();
    lab.network.add_pod(&id, Pod::new("shop", "e", &[("app", "cart")])).expect("the pod is joined");
    lab.save_pod(lab.pod("e")).expect("the pod is saved");
    let wanted = format!("map GRANTS is full ({GRANTS} of {GRANTS})");
    let told = wait::until("the connection says why", || {
        let status = lab.get("serviceconnection", "cart-orders").ok()?["status"].clone();
        let conditions = status["conditions"].as_array()?.clone();
        let programmed = conditions.into_iter().find(|condition| condition["type"] == "Programmed")?;
        (programmed["status"] == "False").then_some(programmed)
    });
    let told = told.expect("the connection says why");
    assert!(told["message"].as_str().is_some_and(|text| text.contains(&wanted)), "{told}");
    for family in Family::ALL {
        assert_eq!(answer(lab, "a", family), Answer::Works, "over {family:?}");
        assert_ne!(answer(lab, "e", family), Answer::Works, "over {family:?}");
    }
    // Room that another leaves is taken.
    lab.delete("pod-d.yaml").expect("the pod goes");
    let works =
        || answer(lab, "e", Family::V4) == Answer::Works && answer(lab, "e", Family::V6) == Answer::Works;
    wait::for_true("the new pod is served", works).expect("the new pod is served");
}

/// A client of the key-value store that keeps its connection; `None`: it got none.
fn hold(lab: &Lab, pod: &str, number: usize) -> Option<Running> {
    let service = lab.place(pod).resolve(&Service::KeyValueStore.fqdn(), Family::V4);
    let address = service.expect("getent starts").expect("the service has an address");
    let log = lab.id.log(&format!("held-{pod}-{number}"));
    let words = ["5400", "redis-cli", "-h", &address, "subscribe", "channel"];
    let mut client = lab.place(pod).start("timeout", &words, &log).expect("the client starts");
    let held = wait::until("the client is served, or sends its SYN once more", || {
        let subscribed = std::fs::read_to_string(&log).is_ok_and(|text| text.contains("subscribe"));
        (subscribed || client.ended().is_some() || is_denied(lab, pod)).then_some(subscribed)
    });
    held.expect("the client does not hang").then_some(client)
}

/// Whether a SYN of the pod was sent a third time: in this lab nothing gets lost by itself.
fn is_denied(lab: &Lab, pod: &str) -> bool {
    let sockets = lab.elsewhere(pod).run("ss", &["-Hton", "state", "syn-sent"]).expect("ss starts");
    // `timer:(on,380ms,2)`
    let again = sockets.stdout.split("timer:(").skip(1).filter_map(|timer| timer.split(')').next());
    again.filter_map(|timer| timer.rsplit(',').next()?.parse::<u32>().ok()).any(|count| count >= 2)
}

/// As many clients as a pod gets.
fn all(lab: &Lab, pod: &str, most: usize) -> Vec<Running> {
    (0..=most).map_while(|number| hold(lab, pod, number)).collect()
}

/// One pod takes what it can; another works all the same.
fn greedy(lab: &Lab) -> Vec<Running> {
    let held = all(lab, "a", QUOTA);
    assert!((1..=QUOTA).contains(&held.len()), "{} connections of {QUOTA}", held.len());
    let drops = || lab.status(Role::Agent).ok()?["counters"]["drops"]["QuotaExceeded"].as_u64();
    assert!(drops() > Some(0), "the quota is what ended it");
    for family in Family::ALL {
        assert_eq!(answer(lab, "b", family), Answer::Works, "b beside the greedy a, over {family:?}");
    }
    held
}

/// Everybody takes what is left, and nobody is there who could help the kernel.
fn no_room_for_flows(lab: &mut Lab, mut held: Vec<Running>) {
    lab.kill(Role::Agent).expect("the agent is killed");
    for pod in ["b", "c", "e"] {
        held.extend(all(lab, pod, QUOTA));
    }
    assert!(held.len() <= FLOWS, "{} connections of {FLOWS}", held.len());
    assert!(hold(lab, "e", 99).is_none(), "there is no room for one more");
    for client in &mut held {
        assert!(client.ended().is_none(), "no flow that lives is taken for a new one");
    }
    lab.start(Role::Agent).expect("the agent starts");
    let full = wait::until("the drops are told", || {
        let drops = lab.status(Role::Agent).ok()?["counters"]["drops"].clone();
        (drops["FlowTableFull"].as_u64() > Some(0)).then_some(drops)
    });
    full.expect("the table was full");
    for client in &mut held {
        assert!(client.ended().is_none(), "the agent's return ends nothing");
    }
}
