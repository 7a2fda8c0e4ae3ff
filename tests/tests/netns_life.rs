//! A node's life: boot, devices that come, grants that go, gateways that die and return, restarts.
//!
//! The tests share a lab as those of `netns` do, but for those that need a node which no agent has seen yet.

#[path = "netns_life/boot.rs"]
mod boot;
#[path = "netns_life/cleanup.rs"]
mod cleanup;
#[path = "netns_life/held.rs"]
mod held;
#[path = "netns_life/late.rs"]
mod late;
#[path = "netns_life/liveness.rs"]
mod liveness;
#[path = "netns_life/maps.rs"]
mod maps;
#[path = "netns_life/nodes.rs"]
mod nodes;
#[path = "netns_life/restart.rs"]
mod restart;
#[path = "netns_life/revoke.rs"]
mod revoke;
#[path = "netns_life/second.rs"]
mod second;
#[path = "netns/shared.rs"]
mod shared;
