//! enforcer as people have it: installed on a real cluster from its image, with real pods before a real PostgreSQL.

#[path = "cluster_enforcer/world.rs"]
mod world;

#[path = "cluster_enforcer/agent.rs"]
mod agent;
#[path = "cluster_enforcer/applications.rs"]
mod applications;
#[path = "cluster_enforcer/beside.rs"]
mod beside;
#[path = "cluster_enforcer/boot.rs"]
mod boot;
#[path = "cluster_enforcer/grants.rs"]
mod grants;
#[path = "cluster_enforcer/identity.rs"]
mod identity;
