//! `enforcer gateway --cleanup`: a gateway's host as it was, but for the ports that are kept free until it boots.

use anyhow::Context as _;

use super::{Args, lock};
use crate::{datapath::kernel::remove_everything, leftovers, netlink::Netlink, signals, tunnel};

/// Files of a run directory that a gateway makes, and its tunnel.
const FILES: [&str; 6] =
    ["gateway.sock", "gateway.lock", "bindings.json", "bindings.json.new", "accepted", "tunnels"];

/// Removes everything that a gateway has made but its key, and returns a line for each. Doing it twice is fine.
///
/// # Errors
/// A gateway that still runs would make all of it anew.
pub async fn cleanup(args: &Args) -> anyhow::Result<String> {
    let (run_dir, bpffs) = (args.run_dir(), args.bpffs());
    std::fs::create_dir_all(&run_dir).with_context(|| format!("cannot make {}", run_dir.display()))?;
    let lock = lock(&run_dir).await?;
    let mut removed = remove_everything(&bpffs)
        .with_context(|| format!("cannot take the programs of {} off", bpffs.display()))?;
    removed.extend(leftovers::remove_descriptions(&run_dir)?);
    let netlink = Netlink::open(None)?;
    let device = tunnel::device_name(&args.name);
    // A tunnel in user space takes its own along.
    if let Some(link) = netlink.link(&device).await? {
        netlink.remove_device(link.ifindex).await?;
        removed.push(format!("device {device}"));
    }
    netlink.prune_routes(|_| false).await?;
    removed.push("routes of enforcer (proto 239)".to_owned());
    removed.extend(leftovers::remove_files(&run_dir, &FILES)?);
    drop(lock);
    removed.extend(leftovers::remove_run_dir(&run_dir));
    if args.stay {
        tracing::info!("the gateway's host is clean");
        signals::told_to_end()?.await;
    }
    Ok(leftovers::lines(&removed))
}
