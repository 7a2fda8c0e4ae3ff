//! Who is who over time: addresses, namespaces, devices, cgroups and names go from hand to hand, and no grant goes
//! along.

#[path = "netns_identity/explained.rs"]
mod explained;
#[path = "netns_identity/hosts.rs"]
mod hosts;
#[path = "netns_identity/inside.rs"]
mod inside;
#[path = "netns_identity/labels.rs"]
mod labels;
#[path = "netns_identity/liars.rs"]
mod liars;
#[path = "netns_identity/reuse.rs"]
mod reuse;
#[path = "netns/shared.rs"]
mod shared;
#[path = "netns_identity/turn.rs"]
mod turn;
