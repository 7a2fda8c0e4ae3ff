//! A node of a lab whose agent has its objects from a real API server.

#[path = "control_node/boot.rs"]
mod boot;
#[path = "control_node/clusters.rs"]
mod clusters;
#[path = "control_node/host.rs"]
mod host;
