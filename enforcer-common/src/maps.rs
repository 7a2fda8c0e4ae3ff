//! Names and sizes of every map, for both sides. What each holds is said where it is declared (`enforcer-ebpf`).

/// Names; the kernel keeps 15 characters.
pub mod name {
    pub const NODE_CONFIG: &str = "NODE_CONFIG";
    pub const GUARD: &str = "GUARD";
    pub const GUARD_FILTER: &str = "GUARD_FILTER";
    pub const WIRE: &str = "WIRE";
    pub const NETNS: &str = "NETNS";
    pub const CGROUPS: &str = "CGROUPS";
    pub const PLACES: &str = "PLACES";
    pub const GRANTS: &str = "GRANTS";
    pub const GRANT_STATS: &str = "GRANT_STATS";
    pub const DESTINATIONS: &str = "DESTINATIONS";
    pub const FLOWS: &str = "FLOWS";
    pub const FLOW_RING: &str = "FLOW_RING";
    pub const FLOW_CURSOR: &str = "FLOW_CURSOR";
    pub const FLOW_COUNTS: &str = "FLOW_COUNTS";
    pub const FRAGMENTS: &str = "FRAGMENTS";
    pub const TUNNELS: &str = "TUNNELS";
    pub const TUNNEL_SEEN: &str = "TUNNEL_SEEN";
    pub const ENDPOINTS: &str = "ENDPOINTS";
    pub const COUNTERS: &str = "COUNTERS";
    pub const EVENTS: &str = "EVENTS";
    pub const EVENT_BUDGET: &str = "EVENT_BUDGET";
    pub const GW_CONFIG: &str = "GW_CONFIG";
    pub const GW_NODES: &str = "GW_NODES";
    pub const GW_SOURCES: &str = "GW_SOURCES";
    pub const GW_GRANTS: &str = "GW_GRANTS";
    pub const GW_SERVICES: &str = "GW_SERVICES";
    pub const GW_BACKENDS: &str = "GW_BACKENDS";
    pub const GW_ALLOWED: &str = "GW_ALLOWED";
    pub const GW_FLOWS: &str = "GW_FLOWS";
    pub const GW_NAT: &str = "GW_NAT";

    /// Maps of a node; the gateway has the other maps and [`SHARED`].
    pub const NODE: &[&str] = &[
        NODE_CONFIG,
        GUARD,
        GUARD_FILTER,
        WIRE,
        NETNS,
        CGROUPS,
        PLACES,
        GRANTS,
        DESTINATIONS,
        FLOWS,
        TUNNELS,
        TUNNEL_SEEN,
        ENDPOINTS,
    ];
    pub const GATEWAY: &[&str] =
        &[GW_CONFIG, GW_NODES, GW_SOURCES, GW_GRANTS, GW_SERVICES, GW_BACKENDS, GW_ALLOWED, GW_FLOWS, GW_NAT];
    pub const SHARED: &[&str] =
        &[GRANT_STATS, FLOW_RING, FLOW_CURSOR, FLOW_COUNTS, FRAGMENTS, COUNTERS, EVENTS, EVENT_BUDGET];
}

/// Sizes: entries, and bytes for the ring buffer. Defaults; the roles can set others when they load.
pub mod size {
    pub const GUARD: u32 = 1 << 10;
    pub const WIRE: u32 = 1 << 13;
    pub const NETNS: u32 = 1 << 12;
    pub const CGROUPS: u32 = 1 << 12;
    pub const PLACES: u32 = 1 << 13;
    /// 250 pods with 1000 grants each, and room.
    pub const GRANTS: u32 = 300_000;
    pub const GRANT_STATS: u32 = 300_000;
    pub const DESTINATIONS: u32 = 1 << 15;
    /// Flows; the ring that reclaims them has a slot for each.
    pub const FLOWS: u32 = 1 << 17;
    pub const FRAGMENTS: u32 = 1 << 12;
    pub const ENDPOINTS: u32 = 1 << 10;
    pub const EVENTS: u32 = 1 << 20;
    pub const FLOW_COUNTS: u32 = 1 << 13;
    pub const GW_NODES: u32 = 1 << 13;
    pub const GW_SOURCES: u32 = 1 << 15;
    pub const GW_GRANTS: u32 = 1 << 20;
    pub const GW_SERVICES: u32 = 1 << 15;
    pub const GW_BACKENDS: u32 = 1 << 17;
    pub const GW_ALLOWED: u32 = 1 << 12;
}

/// Indices of `COUNTERS` (per CPU, `u64`): 0–63 are drop reasons, then these.
pub mod counter {
    pub const REASONS: u32 = 64;
    pub const EVENTS_LIMITED: u32 = 64;
    pub const EVENTS_LOST: u32 = 65;
    /// Packets to guarded addresses that went into the tunnel.
    pub const ALLOWED: u32 = 66;
    pub const COUNT: u32 = 67;
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_keeps_every_name_whole() {
        use super::name::{GATEWAY, NODE, SHARED};
        for name in NODE.iter().chain(GATEWAY).chain(SHARED) {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
