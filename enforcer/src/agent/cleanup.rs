//! `enforcer agent --cleanup`: a node as it was before enforcer came.
//!
//! Programs go first and the blackholes last, so that nothing leaves the node in clear while it is done.

use std::path::Path;

use anyhow::Context as _;

use super::{Args, boot_unit, pair, start, tunnels};
use crate::{datapath::kernel::remove_everything, leftovers, netlink::Netlink, netns, signals};

/// Files of a run directory that an agent makes, and its tunnel.
const FILES: [&str; 6] =
    ["agent.sock", "agent.lock", "workloads.json", "workloads.json.new", "accepted", "tunnels"];

/// Removes everything that an agent has made, and returns a line for each. Doing it twice is fine.
///
/// # Errors
/// An agent that still runs would make all of it anew.
pub async fn cleanup(args: &Args) -> anyhow::Result<String> {
    let run_dir = args.run_dir.clone().unwrap_or_else(|| Path::new("/run/enforcer").join(&args.node));
    let lock = start::lock(&run_dir)?;
    let bpffs = args.bpffs_path();
    let mut removed = remove_everything(&bpffs)
        .with_context(|| format!("cannot take the programs of {} off", bpffs.display()))?;
    let netns = args.tunnel_netns.clone().unwrap_or_else(|| tunnels::default_netns(&args.node));
    removed.extend(leftovers::remove_descriptions(&run_dir)?);
    removed.extend(devices(&netns).await?);
    // The last that keeps anything in.
    Netlink::open(None)?.prune_routes(|_| false).await?;
    removed.push("routes of enforcer (proto 239)".to_owned());
    removed.extend(leftovers::remove_files(&run_dir, &FILES)?);
    removed.extend(boot_guard(args)?);
    drop(lock);
    removed.extend(leftovers::remove_run_dir(&run_dir));
    // Named only by whoever wants it gone.
    if args.key != Path::new("-") && leftovers::remove(&args.key)? {
        removed.push(args.key.display().to_string());
    }
    if args.stay {
        tracing::info!("the node is clean");
        signals::told_to_end()?.await;
    }
    Ok(leftovers::lines(&removed))
}

/// The next boot guards nothing any more.
fn boot_guard(args: &Args) -> anyhow::Result<Vec<String>> {
    let Some(guarded) = &args.guarded else { return Ok(Vec::new()) };
    let mut removed = Vec::new();
    if args.boot_guard.is_some() {
        removed.extend(boot_unit::remove(guarded)?.iter().map(|path| path.display().to_string()));
    }
    if leftovers::remove(guarded)? {
        removed.push(guarded.display().to_string());
    }
    Ok(removed)
}

/// Everything in the tunnel netns is ours, and so is the pair that leads into it.
async fn devices(netns: &Path) -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    if netns.exists() {
        // A name without a namespace is what a boot leaves.
        if let Ok(inside) = Netlink::open(Some(netns)) {
            for link in inside.links().await?.into_iter().filter(|link| !link.loopback) {
                inside.remove_device(link.ifindex).await?;
                removed.push(format!("device {} of {}", link.name, netns.display()));
            }
        }
        netns::remove(netns).with_context(|| format!("cannot remove {}", netns.display()))?;
        removed.push(format!("network namespace {}", netns.display()));
    }
    let host = Netlink::open(None)?;
    // Without the namespace its other end is gone, and so is it, soon.
    if let Some(link) = host.link(pair::ENFORCER0).await?.filter(|link| link.mac == pair::ENFORCER0_MAC) {
        host.remove_device(link.ifindex).await?;
        removed.push(format!("device {}", pair::ENFORCER0));
    }
    Ok(removed)
}
