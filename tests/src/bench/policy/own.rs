//! enforcer's own decision among many grants: `from_pod` on packets that never see a device.
#![expect(clippy::cast_precision_loss, reason = "a run takes no such number of nanoseconds")]

use anyhow::{Context as _, Result, ensure};
use enforcer_common::{
    Addr, Port,
    config::NodeConfig,
    grant::{FOREVER, Grant, GrantKey},
    maps::{counter, name},
};

use super::super::{Scope, empty::Empty};
use crate::{
    packet::{ACK, Packet, SYN},
    prog::node::{self, PORT},
};

const REPEAT: u32 = 20_000;

/// Nanoseconds of a packet, and of the first packet of a connection, with so many grants.
pub fn measure(grants: u32, scope: Scope) -> Result<[(&'static str, Vec<f64>); 2]> {
    let empty = Empty::load().context("cannot load an empty program")?;
    let (mut kernel, family) = (node::node_of_its_own(4096), node::v4());
    let config = kernel.at::<NodeConfig>(name::NODE_CONFIG, 0);
    kernel.put::<NodeConfig>(name::NODE_CONFIG, 0, NodeConfig { flow_quota: 4096, ..config });
    for number in 1..grants {
        let service = Addr::v4(std::net::Ipv4Addr::from(0xc612_4000 + number));
        let key = GrantKey { service, workload: node::WORKLOAD, port: Port::new(PORT), protocol: 6, pad: 0 };
        let grant =
            Grant { valid_until_ns: FOREVER, gateways: 1 << node::SLOT, id: 1000 + number, connection: 1 };
        kernel.set::<GrantKey, Grant>(name::GRANTS, key, grant);
    }
    let (mut packets, mut firsts) = (Vec::new(), Vec::new());
    for round in 0..scope.rounds(12) as u16 {
        node::hear(&mut kernel);
        let base = |frame: &[u8], repeat| empty.time(frame, repeat).map(f64::from);
        let frame = family.out(ACK).frame();
        let before = kernel.counter(counter::ALLOWED);
        let gross = kernel.time("from_pod", &frame, REPEAT) as f64;
        ensure!(kernel.counter(counter::ALLOWED) - before == u64::from(REPEAT), "packets were refused");
        packets.push(gross - base(&frame, REPEAT)?);
        // A new flow once only: a median of single runs, each of another port.
        let mut single = Vec::new();
        for port in 0..15 {
            let client = (family.pod, 41_000 + round * 15 + port);
            let frame = Packet::tcp(client.into(), (family.service, PORT).into(), SYN).frame();
            let gross = kernel.time("from_pod", &frame, 1) as f64;
            single.push(gross - base(&frame, 1)?);
        }
        single.sort_by(f64::total_cmp);
        firsts.push(single[single.len() / 2]);
    }
    Ok([("packet", packets), ("connection", firsts)])
}
