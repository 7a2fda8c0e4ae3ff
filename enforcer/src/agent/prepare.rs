//! The boot guard: before kubelet starts any pod, everything guarded is led nowhere.
//!
//! Needs no maps, no programs and no other role: what it knows is the state file of before the boot. The agent that
//! comes later finds the routes as its own; those that lead into the tunnel have a better metric.

use anyhow::Context as _;

use super::{Args, pair};
use crate::{netlink::Netlink, resolve::resolve, source, state, store::Snapshot};

/// Sets a blackhole route for every guarded range of both families and returns a line for each. Doing it twice is
/// fine.
///
/// # Errors
/// Without a state file it is not known what is guarded: a boot guard that guards nothing has failed.
pub async fn prepare(args: &Args) -> anyhow::Result<String> {
    let path = args.source.state.clone().or_else(|| args.source.state_path());
    let path = path.context("which ranges are guarded? expected --state FILE, or --manifests DIR")?;
    let state = state::load(&path)?;
    let state = state
        .with_context(|| format!("{} is missing: the ranges that it would name stay open", path.display()))?;
    // Prefixes that an administrator listed are in the objects.
    let manifests = args.source.manifests.as_ref().filter(|manifests| manifests.is_dir());
    let snapshot = manifests.map_or_else(Snapshot::default, |manifests| source::manifests::load(manifests));
    let resolved = resolve(&snapshot, &state);
    let guarded = pair::set_blackholes(&Netlink::open(None)?, &resolved).await?;
    Ok(guarded.iter().fold(String::new(), |lines, destination| lines + &format!("blackhole {destination}\n")))
}
