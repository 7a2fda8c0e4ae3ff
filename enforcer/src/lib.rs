//! enforcer: ServiceConnections, decided in the kernel.
//!
//! One direction of data: `source` → `store` → `resolve` → `compile` → `reconcile` → `datapath` and `tunnel`.

pub mod agent;
pub mod announce;
pub mod cgroup;
pub mod changes;
pub mod cli;
pub mod compile;
pub mod control;
pub mod controller;
pub mod datapath;
pub mod dns;
pub mod gateway;
pub mod install;
pub mod keygen;
mod leftovers;
pub mod model;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod reconcile;
pub mod reset;
pub mod resolve;
pub mod signals;
pub mod sockdiag;
pub mod source;
pub mod state;
pub mod store;
pub mod tunnel;
pub mod validate;

/// The BPF object, as built together with this crate.
pub static BPF_OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ENFORCER_BPF_OBJECT"));
