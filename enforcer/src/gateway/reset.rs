//! Resets for both ends of a flow whose grant is gone; they leave through raw sockets.

use std::{io, net::SocketAddr};

use enforcer_common::{
    flow::{ACK_CLIENT, ACK_SERVER, FlowKey},
    gateway::GwFlow,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::reset::{Reset, TCP};

/// The resets that end a flow: to the backend and to the client, as far as their numbers are known.
pub fn of_flow(key: &FlowKey, flow: &GwFlow) -> Vec<Reset> {
    if key.protocol != TCP {
        return Vec::new();
    }
    let client_ack = (flow.seen_acks & ACK_CLIENT != 0).then_some(flow.client_ack);
    let backend_ack = (flow.seen_acks & ACK_SERVER != 0).then_some(flow.backend_ack);
    let at = |address: enforcer_common::Addr, port: enforcer_common::Port| {
        SocketAddr::new(address.ip(), port.get())
    };
    let to_backend = backend_ack.map(|sequence| Reset {
        source: at(flow.source, flow.source_port),
        destination: at(flow.backend, flow.backend_port),
        sequence,
        acknowledgement: client_ack,
    });
    let to_client = client_ack.map(|sequence| Reset {
        source: at(key.service, key.service_port),
        destination: at(key.client, key.client_port),
        sequence,
        acknowledgement: backend_ack,
    });
    to_backend.into_iter().chain(to_client).collect()
}

/// Raw sockets of the own network namespace. Needs CAP_NET_RAW.
#[derive(Debug)]
pub struct Injector {
    v4: Socket,
    v6: Socket,
}

impl Injector {
    pub fn open() -> io::Result<Self> {
        // IPPROTO_RAW: the packet brings its own header, and nothing is ever received here.
        let open = |domain| {
            Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(libc::IPPROTO_RAW)))
        };
        let v4 = open(Domain::IPV4)?;
        v4.set_header_included_v4(true)?;
        let v6 = open(Domain::IPV6)?;
        v6.set_header_included_v6(true)?;
        Ok(Self { v4, v6 })
    }

    /// Sends one reset, and its question, where the routes lead: to the backend's network, or into the tunnel.
    pub fn send(&self, reset: &Reset) -> io::Result<()> {
        let socket = if reset.destination.is_ipv4() { &self.v4 } else { &self.v6 };
        // A raw socket takes a port for a protocol number.
        let address = SocketAddr::new(reset.destination.ip(), 0).into();
        for packet in [reset.packet(), reset.question()].into_iter().flatten() {
            socket.send_to(&packet, &address)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port};

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn flow(seen_acks: u8) -> GwFlow {
        GwFlow {
            backend: Addr::v4([192, 0, 2, 10].into()),
            source: Addr::v4([192, 0, 2, 1].into()),
            next_hop: Addr::NONE,
            seen_ns: 0,
            ifindex: 0,
            mtu: 0,
            node: 0,
            connection: 0,
            client_ack: 100,
            backend_ack: 200,
            backend_port: Port::new(6379),
            source_port: Port::new(61_000),
            state: 2,
            seen_acks,
            pad: [0; 2],
        }
    }

    #[test]
    fn each_end_is_reset_at_the_number_that_it_expects() {
        let (client, service) = (Addr::v4([198, 19, 0, 2].into()), Addr::v4([198, 18, 0, 7].into()));
        let key = FlowKey::new(client, Port::new(40_000), service, Port::new(6380), 6);
        let to_backend = Reset {
            source: address("192.0.2.1:61000"),
            destination: address("192.0.2.10:6379"),
            sequence: 200,
            acknowledgement: Some(100),
        };
        let to_client = Reset {
            source: address("198.18.0.7:6380"),
            destination: address("198.19.0.2:40000"),
            sequence: 100,
            acknowledgement: Some(200),
        };
        assert_eq!(of_flow(&key, &flow(ACK_CLIENT | ACK_SERVER)), [to_backend, to_client]);
        assert_eq!(of_flow(&key, &flow(ACK_SERVER)), [Reset { acknowledgement: None, ..to_backend }]);
        assert_eq!(of_flow(&FlowKey { protocol: 17, ..key }, &flow(3)), []);
    }
}
