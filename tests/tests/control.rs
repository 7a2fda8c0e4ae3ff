//! Tier control: a real API server with its store, and our roles beside it. No node, no privileges of the kernel.

#[path = "control/applications.rs"]
mod applications;
#[path = "control/conflicts.rs"]
mod conflicts;
#[path = "control/controller.rs"]
mod controller;
#[path = "control/events.rs"]
mod events;
#[path = "control/interrupted.rs"]
mod interrupted;
#[path = "control/invalid.rs"]
mod invalid;
#[path = "control/names.rs"]
mod names;
#[path = "control/reports.rs"]
mod reports;
#[path = "control/server.rs"]
mod server;
#[path = "control/world.rs"]
mod world;
