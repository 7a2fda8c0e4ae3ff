//! Agent, gateway and controller with objects from a real API server that is not always there, and that has many of them.

#[path = "control_agents/crowd.rs"]
mod crowd;
#[path = "control_agents/outage.rs"]
mod outage;
