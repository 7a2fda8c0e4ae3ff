//! `revoke_ms`, `announce_rtt_ms`, `dead_gateway_ms`: how long the world takes to be as it should be.

use std::{
    io::ErrorKind,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use aya::maps::{HashMap, Map, MapData};
use enforcer::netns;
use enforcer_common::{
    grant::{Grant, GrantKey},
    maps::name,
};

use super::{
    Scope,
    figure::{Bound, Figure},
    traffic,
    tunnels::{SERVICE, Way, guarded},
};
use crate::lab::{Lab, Pod, Role, wait};

const LIMIT: Duration = Duration::from_secs(30);
const POD: &str = "cart";

pub fn figures(scope: Scope) -> Result<Vec<Figure>> {
    let mut way = guarded()?;
    let revocations = (0..scope.rounds(20)).map(|_| revoke(&way)).collect::<Result<Vec<_>>>()?;
    let trips = (0..scope.rounds(20)).map(|_| announce(&way.lab)).collect::<Result<Vec<_>>>()?;
    let deaths = (0..scope.rounds(4) - 1).map(|_| die(&mut way)).collect::<Result<Vec<_>>>()?;
    let revoke = |quantile| Figure::quantile("revoke_ms", revocations.clone(), quantile, "ms");
    Ok(vec![
        revoke(0.5),
        revoke(0.99).reference(Bound::AtMost(1000.0)),
        Figure::median("announce_rtt_ms", trips, "ms"),
        Figure::quantile("dead_gateway_ms", deaths, 1.0, "ms").reference(Bound::AtMost(8000.0)),
    ])
}

/// From the removal of the connection's file until both ends of an idle session were reset.
fn revoke(way: &Way) -> Result<f64> {
    let client = traffic::hold(&way.lab.id.netns(POD), way.to)?;
    let start = Instant::now();
    way.lab.revoke(SERVICE)?;
    let ends = [traffic::reset_at(client)?, way.resets.recv_timeout(LIMIT)?];
    way.lab.grant(SERVICE)?;
    works(way)?;
    let last = ends.into_iter().map(|end| end.duration_since(start)).max().unwrap_or_default();
    Ok(last.as_secs_f64() * 1e3)
}

fn works(way: &Way) -> Result<()> {
    let pod = way.lab.id.netns(POD);
    wait::for_true("the tunnel carries traffic", || {
        traffic::round_trip_us(&pod, way.to, Duration::from_millis(1)).is_ok()
    })
}

/// From a grant in the kernel to its acknowledgement there: the binding of a pod that is selected anew goes to the
/// gateway, and the answer comes back.
fn announce(lab: &Lab) -> Result<f64> {
    let pin = lab.id.bpffs().join("node/maps").join(name::GRANTS);
    let map = HashMap::<_, GrantKey, Grant>::try_from(Map::HashMap(MapData::from_pin(pin)?))?;
    let grants = || -> Vec<Grant> { map.iter().filter_map(|entry| Some(entry.ok()?.1)).collect() };
    let until = |what: &str, done: &dyn Fn(&[Grant]) -> bool| -> Result<Instant> {
        let start = Instant::now();
        while !done(&grants()) {
            if start.elapsed() > LIMIT {
                bail!("waited in vain until {what}");
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(Instant::now())
    };
    let labelled = |value: &str| {
        let pod = lab.pod(POD);
        lab.save_pod(&Pod { labels: vec![("app".into(), value.into())], ..pod.clone() })
    };
    labelled("nobody")?;
    until("no grant is left", &<[Grant]>::is_empty)?;
    labelled("cart")?;
    let begin = until("the grants are there", &|grants| !grants.is_empty())?;
    let end = until("they are acknowledged", &|grants| {
        !grants.is_empty() && grants.iter().all(|grant| grant.gateways != 0)
    })?;
    Ok((end - begin).as_secs_f64() * 1e3)
}

/// From the death of the gateway's tunnel until a client is told that there is no way.
fn die(way: &mut Way) -> Result<f64> {
    let pod = traffic::path(&way.lab.id.netns(POD));
    let start = Instant::now();
    way.lab.kill(Role::GatewayTunnel)?;
    loop {
        let attempt =
            netns::run_in(&pod, || TcpStream::connect_timeout(&way.to, Duration::from_millis(100)))?;
        if attempt.is_err_and(|error| error.kind() == ErrorKind::HostUnreachable) {
            break;
        }
        if start.elapsed() > LIMIT {
            bail!("a dead gateway is not noticed");
        }
    }
    let took = start.elapsed();
    way.lab.start(Role::GatewayTunnel)?;
    works(way)?;
    Ok(took.as_secs_f64() * 1e3)
}
