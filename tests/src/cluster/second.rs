//! A second node: on the same underlay as the first, with the same programs, and pods of its own.

use anyhow::Result;

use super::{
    Cluster,
    node::{FIRST, Node, SECOND},
};
use crate::lab::network::{GATEWAY4, GATEWAY6, add_netns, ip, sysctl};

impl Cluster {
    /// Joins it to the cluster, whose first node is ready.
    pub(super) fn add_second(&mut self) -> Result<()> {
        self.join_second()?;
        self.prepare_node(SECOND)?;
        SECOND.start(self.id(), &self.programs)?;
        self.start_node(SECOND, "")?;
        self.wait("the second node is ready", Self::ready)
    }

    /// No network plugin of the lab's knows of other nodes: each has a route to the pods of the other.
    fn join_second(&self) -> Result<()> {
        let (id, netns) = (self.id(), SECOND.netns(self.id()));
        add_netns(&netns)?;
        ip(
            &id.netns("lan"),
            &format!(
                "link add node1 type veth peer name eth0 netns {netns}
                 link set node1 master br0 up"
            ),
        )?;
        sysctl(&netns, &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])?;
        let [v4, v6] = SECOND.addresses;
        ip(
            &netns,
            &format!(
                "addr add {v4}/24 dev eth0
                 addr add {v6}/64 dev eth0 nodad
                 link set eth0 up
                 route add default via {GATEWAY4}
                 -6 route add default via {GATEWAY6}"
            ),
        )?;
        lead(&netns, FIRST)?;
        lead(&FIRST.netns(id), SECOND)
    }
}

/// The way to the pods of another node.
fn lead(netns: &str, other: Node) -> Result<()> {
    let ([v4, v6], [pods4, pods6]) = (other.addresses, other.pods);
    ip(netns, &format!("route add {pods4} via {v4}\n-6 route add {pods6} via {v6}"))
}
