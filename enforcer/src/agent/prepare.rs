//! The boot guard: before kubelet starts any pod, everything guarded is led nowhere.
//!
//! Needs no maps, no programs and no other role: what it knows is a file of before the boot, the agent's or the
//! controller's. The agent that comes later finds the routes as its own; those that lead into the tunnel have a better
//! metric.

use std::collections::BTreeSet;

use anyhow::Context as _;
use ipnet::IpNet;

use super::{Args, guarded, pair};
use crate::{netlink::Netlink, resolve::resolve, source, state, store::Snapshot};

/// Sets a blackhole route for every guarded range of both families and returns a line for each. Doing it twice is
/// fine.
///
/// # Errors
/// Without a file it is not known what is guarded: a boot guard that guards nothing has failed.
pub async fn prepare(args: &Args) -> anyhow::Result<String> {
    let guarded = match &args.guarded {
        Some(path) => guarded::load(path)?,
        None => by_the_state(args)?,
    };
    pair::set_blackholes(&Netlink::open(None)?, &guarded).await?;
    Ok(guarded.iter().fold(String::new(), |lines, destination| lines + &format!("blackhole {destination}\n")))
}

fn by_the_state(args: &Args) -> anyhow::Result<BTreeSet<IpNet>> {
    let path = args.source.state.clone().or_else(|| args.source.state_path());
    let path =
        path.context("which ranges are guarded? expected --guarded FILE, --state FILE, or --manifests DIR")?;
    let state = state::load(&path)?;
    let state = state
        .with_context(|| format!("{} is missing: the ranges that it would name stay open", path.display()))?;
    // Prefixes that an administrator listed are in the objects.
    let manifests = args.source.manifests.as_ref().filter(|manifests| manifests.is_dir());
    let snapshot = manifests.map_or_else(Snapshot::default, |manifests| source::manifests::load(manifests));
    Ok(resolve(&snapshot, &state).guarded())
}
