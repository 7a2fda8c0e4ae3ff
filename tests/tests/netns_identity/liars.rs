//! A node whose agent is not ours: what it announces beyond its own is refused by the gateway.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use enforcer::{
    announce::{Answer as Told, Binding, Request, VERSION, codec},
    netns,
    state::{self, State},
};
use enforcer_common::config::ANNOUNCE_PORT;
use enforcer_tests::lab::{Lab, Role, manifests::CLUSTER, query::Answer};
use socket2::{Domain, Socket, Type};

use crate::{shared::lab, turn::comes_to};

/// An announce connection, spoken by hand.
struct Liar {
    stream: TcpStream,
}

impl Liar {
    fn connect(lab: &Lab, state: &State) -> Self {
        let node = SocketAddr::new(state.nodes[&lab.id.node()].v4.into(), 0);
        let gateway = SocketAddr::new(state.gateways[&lab.id.gateway()].v4.into(), ANNOUNCE_PORT);
        let connect = move || -> std::io::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&node.into())?;
            socket.connect_timeout(&gateway.into(), Duration::from_secs(20))?;
            Ok(socket.into())
        };
        let stream = netns::run_in(&netns::path_of(&lab.tunnel_netns()), connect);
        let stream = stream.expect("the tunnel netns is there").expect("the gateway listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self { stream }
    }

    fn say(&mut self, request: &Request) {
        let frame = codec::encode(request).expect("it can be said");
        self.stream.write_all(&frame).expect("it is sent");
    }

    fn hear(&mut self) -> Told {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("the gateway answers");
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body).expect("the gateway answers");
        serde_json::from_slice(&body).expect("an answer")
    }
}

fn binding(uid: &str, namespace: &str, last: u32, state: &State, lab: &Lab) -> Binding {
    let node = &state.nodes[&lab.id.node()];
    let v4 = Ipv4Addr::from(u32::from(node.blocks[0].network()) + last);
    Binding {
        uid: uid.to_owned(),
        generation: 1,
        v4: Some(v4),
        v6: Some(Ipv6Addr::from(u128::from(node.subnet.network()) + u128::from(last))),
        cluster: CLUSTER.to_owned(),
        namespace: namespace.to_owned(),
        // Whatever a namespace is labelled, its name is its name.
        namespace_labels: [("kubernetes.io/metadata.name".to_owned(), "shop".to_owned())].into(),
        pod: uid.to_owned(),
        labels: [("app".to_owned(), "cart".to_owned())].into(),
    }
}

#[test]
fn a_node_that_announces_what_is_not_its_own_is_refused() {
    let mut lab = lab();
    let state = state::load(&lab.state_file()).expect("the state is good").expect("there is a state");
    lab.kill(Role::Agent).expect("the agent is killed");
    let mut liar = Liar::connect(&lab, &state);
    liar.say(&Request::Hello { version: VERSION, node: "somebody-else".to_owned() });
    assert_eq!(liar.hear(), Told::Hello { version: VERSION, gateway: lab.id.gateway() });
    let node = &state.nodes[&lab.id.node()];
    let bindings = vec![
        // Of another namespace, with the labels of this one.
        binding("a", "other", 50, &state, &lab),
        // An address of another node's block, the node's own, the gateway's.
        Binding { v4: Some([198, 19, 200, 7].into()), ..binding("b", "shop", 51, &state, &lab) },
        Binding { v4: Some(node.v4), ..binding("c", "shop", 52, &state, &lab) },
        Binding { v6: Some(state.gateways[&lab.id.gateway()].v6), ..binding("d", "shop", 53, &state, &lab) },
        // Another cluster; and the address of the first once more.
        Binding { cluster: "elsewhere".to_owned(), ..binding("e", "shop", 54, &state, &lab) },
        binding("f", "shop", 50, &state, &lab),
    ];
    liar.say(&Request::Snapshot { generation: 1, bindings });
    let mut told: Vec<String> = (0..6)
        .map(|_| match liar.hear() {
            Told::Live { uid, grants, .. } => format!("{uid}: {} grants", grants.len()),
            Told::Refused { uid, message, .. } => format!("{uid}: {message}"),
            other => format!("{other:?}"),
        })
        .collect();
    told.sort();
    let own = binding("f", "shop", 50, &state, &lab).v4.expect("an address");
    assert_eq!(
        told,
        [
            "a: 0 grants".to_owned(),
            format!("b: 198.19.200.7 is no workload address of node {}", lab.id.node()),
            format!("c: {} is no workload address of node {}", node.v4, lab.id.node()),
            format!(
                "d: {} is no workload address of node {}",
                state.gateways[&lab.id.gateway()].v6,
                lab.id.node()
            ),
            format!("e: cluster \"elsewhere\", expected \"{CLUSTER}\" as in TunnelNode {}", lab.id.node()),
            format!("f: {own} is announced for a already"),
        ]
    );
    drop(liar);
    lab.start(Role::Agent).expect("the agent starts");
    lab.wait_ready().expect("everything is as before");
    comes_to(&lab, "cart", &lab.place("cart"), &Answer::Works);
}

/// The gateway reads the same pods as the agents here.
#[test]
fn a_node_that_announces_pods_of_others_is_refused_where_the_gateway_can_read_them() {
    let mut lab = lab();
    let state = state::load(&lab.state_file()).expect("the state is good").expect("there is a state");
    let away = "apiVersion: v1\nkind: Pod\nmetadata: {name: away, namespace: shop, uid: uid-away}\n\
                spec: {nodeName: elsewhere}\n";
    lab.save("pod-away.yaml", away).expect("the pod is saved");
    lab.kill(Role::Agent).expect("the agent is killed");
    let mut liar = Liar::connect(&lab, &state);
    liar.say(&Request::Hello { version: VERSION, node: lab.id.node() });
    assert_eq!(liar.hear(), Told::Hello { version: VERSION, gateway: lab.id.gateway() });
    let claim = |uid: &str, pod: &str, last| Binding {
        pod: pod.to_owned(),
        ..binding(uid, "shop", last, &state, &lab)
    };
    let bindings = vec![
        claim("uid-away", "away", 50),
        // Another's name, with a uid of its own; and the other way round.
        claim("uid-false", "cart", 51),
        claim("uid-cart", "audit", 52),
        claim("uid-unheard-of", "fresh", 53),
    ];
    // Until the gateway has read the pod, it has to believe what is said of it.
    let mut told = BTreeMap::new();
    liar.say(&Request::Snapshot { generation: 1, bindings });
    let refused =
        |told: &BTreeMap<String, String>| told.get("uid-away").is_some_and(|told| told.contains("runs on"));
    while told.len() < 4 || !refused(&told) {
        match liar.hear() {
            Told::Live { uid, grants, .. } => told.insert(uid, format!("{} grants", grants.len())),
            Told::Refused { uid, message, .. } => told.insert(uid, message),
            // What the agent had announced goes meanwhile.
            Told::Released { .. } => continue,
            other @ Told::Hello { .. } => panic!("{other:?}"),
        };
    }
    let node = lab.id.node();
    let expected = [
        ("uid-away", format!("pod shop/away runs on node \"elsewhere\", not on that of {node}")),
        ("uid-cart", "uid uid-cart is that of pod shop/cart".to_owned()),
        ("uid-false", "pod shop/cart has the uid uid-cart".to_owned()),
        // Three services in two families each: of a pod that cannot be read, a node is believed.
        ("uid-unheard-of", "6 grants".to_owned()),
    ];
    assert_eq!(told, expected.map(|(uid, told)| (uid.to_owned(), told)).into());
    let status = lab.status(Role::Gateway).expect("the gateway answers");
    let shown = status["refused"].as_array().expect("a list").len();
    assert_eq!(shown, 3, "{}", status["refused"]);
    assert!(lab.log("gateway").contains("pod shop/away runs on node"), "{}", lab.log("gateway"));
    drop(liar);
    lab.delete("pod-away.yaml").expect("the pod is removed");
    lab.start(Role::Agent).expect("the agent starts");
    lab.wait_ready().expect("everything is as before");
    comes_to(&lab, "cart", &lab.place("cart"), &Answer::Works);
}
