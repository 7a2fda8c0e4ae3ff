//! The thread that ends what has no grant any more, in this order: the kernel's grant is gone before it is told, flows
//! turn *revoking*, sockets are destroyed where they are, and what no socket table of ours shows (a namespace inside
//! a pod, sockets of the host that several pods may have) gets a reset with the number that it expects.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use enforcer_common::{
    flow::{ACK_CLIENT, ACK_SERVER, Flow, FlowKey},
    maps::name,
};

use super::{boot_ns, pair, revoke};
use crate::{
    datapath::kernel::Orphans,
    netns,
    reset::{self, Reset},
};

/// A reset is sent so often: data that was under way when the first one was made moves the number that is expected.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// One order: grants went.
pub struct Order {
    /// Sockets that nobody else may have.
    pub sockets: revoke::Doomed,
    pub netns: PathBuf,
    /// Index of the inner end of the pair.
    pub tunnel0: u32,
}

/// The thread; it ends with this value.
pub struct Ending {
    orders: Sender<Order>,
}

impl Ending {
    pub fn start(orphans: Orphans) -> io::Result<Self> {
        let (orders, receiver) = channel();
        let work = Work { orphans, rounds: BTreeMap::new() };
        thread::Builder::new().name("ending".to_owned()).spawn(move || work.run(&receiver))?;
        Ok(Self { orders })
    }

    pub fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::warn!("the thread that ends sessions is gone: they are left to the kernel");
        }
    }
}

struct Work {
    orphans: Orphans,
    /// Resets that a flow has had. Key: the flow.
    rounds: BTreeMap<FlowKey, u32>,
}

impl Work {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut last: Option<Order> = None;
        loop {
            let due = self.rounds.values().any(|round| *round < ROUNDS);
            let got = match &last {
                Some(_) if due => orders.recv_timeout(PAUSE),
                _ => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match got {
                Ok(mut order) => {
                    for more in orders.try_iter() {
                        let sockets = std::mem::replace(&mut order, more).sockets;
                        for (place, services) in sockets {
                            order.sockets.entry(place).or_default().extend(services);
                        }
                    }
                    self.mark();
                    revoke::destroy(&order.sockets);
                    last = Some(order);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(order) = &last {
                self.reset(order);
            }
        }
    }

    /// Turns flows without a grant *revoking*: from then on nothing passes that would move the numbers.
    fn mark(&mut self) {
        let now_ns = boot_ns();
        let flows = match self.orphans.find(now_ns) {
            Ok(flows) => flows,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(
                    error,
                    "flows without a grant are left to the kernel: {} cannot be read",
                    name::FLOWS
                );
                return;
            }
        };
        self.rounds.retain(|key, _| flows.contains_key(key));
        for key in flows.keys() {
            match self.orphans.revoke(key, now_ns) {
                Ok(Some(_)) => drop(self.rounds.entry(*key).or_insert(0)),
                Ok(None) => {}
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(error, "a flow cannot be marked as revoking");
                }
            }
        }
    }

    /// One round of resets for flows that have not had all of theirs.
    fn reset(&mut self, order: &Order) {
        let due: Vec<FlowKey> =
            self.rounds.iter().filter(|(_, round)| **round < ROUNDS).map(|(key, _)| *key).collect();
        if due.is_empty() {
            return;
        }
        let injector = Injector::open(&order.netns, order.tunnel0);
        for key in due {
            self.rounds.entry(key).and_modify(|round| *round += 1);
            let sent = match (&injector, self.orphans.revoke(&key, boot_ns())) {
                (Ok(injector), Ok(Some(flow))) => {
                    of_flow(&key, &flow).map_or(Ok(()), |reset| injector.send(&reset))
                }
                (Err(error), _) => Err(io::Error::new(error.kind(), error.to_string())),
                (Ok(_), Ok(None) | Err(_)) => Ok(()),
            };
            if let Err(error) = sent {
                tracing::debug!(%error, ?key, "a reset cannot be sent");
            }
        }
    }
}

/// What ends a flow at its client; `None` where the client has not acknowledged anything yet.
fn of_flow(key: &FlowKey, flow: &Flow) -> Option<Reset> {
    if key.protocol != reset::TCP || flow.seen_acks & ACK_CLIENT == 0 {
        return None;
    }
    let at = |address: enforcer_common::Addr, port: enforcer_common::Port| (address.ip(), port.get()).into();
    Some(Reset {
        source: at(key.service, key.service_port),
        destination: at(key.client, key.client_port),
        sequence: flow.client_ack,
        acknowledgement: (flow.seen_acks & ACK_SERVER != 0).then_some(flow.server_ack),
    })
}

/// Puts packets into the pair at its inner end: they come out where replies do, and `to_workload` hands them to the
/// flow's own interface. Needs CAP_NET_RAW.
struct Injector {
    socket: socket2::Socket,
    tunnel0: u32,
}

impl Injector {
    fn open(netns: &Path, tunnel0: u32) -> io::Result<Self> {
        // No protocol: nothing is ever received here.
        let open = || socket2::Socket::new(socket2::Domain::PACKET, socket2::Type::RAW.cloexec(), None);
        Ok(Self { socket: netns::run_in(netns, open)??, tunnel0 })
    }

    fn send(&self, reset: &Reset) -> io::Result<()> {
        let protocol = if reset.destination.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
        let address = link_address(self.tunnel0, protocol)?;
        for packet in [reset.packet(), reset.question()].into_iter().flatten() {
            let mut frame = Vec::with_capacity(14 + packet.len());
            frame.extend_from_slice(&pair::ENFORCER0_MAC);
            frame.extend_from_slice(&pair::TUNNEL0_MAC);
            frame.extend_from_slice(&protocol.to_be_bytes());
            frame.extend_from_slice(&packet);
            self.socket.send_to(&frame, &address)?;
        }
        Ok(())
    }
}

#[expect(unsafe_code, reason = "neither nix nor socket2 makes addresses of packet sockets")]
fn link_address(ifindex: u32, protocol: u16) -> io::Result<socket2::SockAddr> {
    // SAFETY: the storage is zeroed, large and aligned enough for any address, and `sockaddr_ll` holds nothing but
    // numbers.
    let ((), address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let link = &mut *storage.cast::<libc::sockaddr_ll>();
            link.sll_family = libc::AF_PACKET as u16;
            link.sll_protocol = protocol.to_be();
            link.sll_ifindex = ifindex.cast_signed();
            link.sll_halen = pair::ENFORCER0_MAC.len() as u8;
            link.sll_addr[..pair::ENFORCER0_MAC.len()].copy_from_slice(&pair::ENFORCER0_MAC);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    Ok(address)
}

#[cfg(test)]
mod tests {
    use enforcer_common::{Addr, Port};

    use super::*;

    #[test]
    fn a_client_is_reset_at_the_number_that_it_expects() {
        let (client, service) = (Addr::v4([10, 0, 0, 2].into()), Addr::v4([198, 18, 0, 7].into()));
        let key = FlowKey::new(client, Port::new(40_000), service, Port::new(5432), reset::TCP);
        let flow = Flow {
            workload_address: Addr::NONE,
            seen_ns: 0,
            packets_out: 0,
            bytes_out: 0,
            packets_in: 0,
            bytes_in: 0,
            workload: 1,
            ifindex: 5,
            client_ack: 100,
            server_ack: 200,
            tunnel: 0,
            state: 2,
            seen_acks: ACK_CLIENT | ACK_SERVER,
            grant: 1,
            pad: 0,
        };
        let expected = Reset {
            source: "198.18.0.7:5432".parse().unwrap(),
            destination: "10.0.0.2:40000".parse().unwrap(),
            sequence: 100,
            acknowledgement: Some(200),
        };
        assert_eq!(of_flow(&key, &flow), Some(expected));
        assert_eq!(of_flow(&key, &Flow { seen_acks: ACK_SERVER, ..flow }), None);
        assert_eq!(of_flow(&FlowKey { protocol: 17, ..key }, &flow), None);
    }
}
