//! What an install leaves on nodes and at the server.

use anyhow::{Result, bail};
use enforcer_tests::lab::wait;

use crate::world::{BESIDE, LABEL, World};

/// Everything that is enforcer's by its name or place.
const SCRIPT: &str = "
cd /host
find bpf -mindepth 1 2>/dev/null | grep enforcer
find run/enforcer state/enforcer -mindepth 1 ! -type d 2>/dev/null
ls run/netns 2>/dev/null | grep enforcer
ls run/wireguard 2>/dev/null | grep '^ef-'
ls /sys/class/net | grep -E '^(enforcer|ef-)'
true
";

/// Somebody on a node with an agent, and somebody on the gateway's.
pub struct Look([String; 2]);

impl Look {
    /// Waits until both look, and see something.
    pub fn at(world: &World) -> Result<Self> {
        let selector = format!("!{LABEL}");
        let args = ["get", "nodes", "--selector", &selector, "--output=jsonpath={.items[0].metadata.name}"];
        let node = world.client.kubectl(&args)?;
        let look = Self([world.watcher(&node)?, world.watcher(&world.gateway_node)?]);
        for watcher in &look.0 {
            wait::for_true("a node shows what enforcer has there", || {
                see(world, watcher).is_ok_and(|seen| !seen.is_empty())
            })?;
        }
        Ok(look)
    }

    pub fn nothing_is_left(&self, world: &World) -> Result<()> {
        for watcher in &self.0 {
            let left = see(world, watcher)?;
            if !left.is_empty() {
                bail!("{watcher} still sees {left:#?}");
            }
        }
        let mut last = Vec::new();
        let gone = wait::for_true("the server has forgotten it", || {
            let all = world.client.kubectl(&[
                "get",
                "customresourcedefinitions,clusterroles,clusterrolebindings,namespaces",
                "--output=name",
            ]);
            let all = all.unwrap_or_default();
            let of_ours = |name: &&str| name.contains("enforcer") && !name.contains("/enforcer-test-");
            last = all.lines().filter(of_ours).map(str::to_owned).collect();
            !all.is_empty() && last.is_empty()
        });
        match gone {
            Ok(()) => Ok(()),
            Err(err) => bail!("{err:#}: {last:?}"),
        }
    }
}

fn see(world: &World, watcher: &str) -> Result<Vec<String>> {
    let args = ["--namespace", BESIDE, "exec", watcher, "--", "sh", "-c", SCRIPT];
    Ok(world.client.kubectl(&args)?.lines().map(str::to_owned).collect())
}
