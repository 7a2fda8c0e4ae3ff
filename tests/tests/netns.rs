//! Real traffic of real clients and servers through every role, in namespaces.
//!
//! All tests share one lab and take turns in it; each starts from the same objects with every role ready.

#[path = "netns/backends.rs"]
mod backends;
#[path = "netns/grants.rs"]
mod grants;
#[path = "netns/labs.rs"]
mod labs;
#[path = "netns/paths.rs"]
mod paths;
#[path = "netns/restarts.rs"]
mod restarts;
#[path = "netns/shared.rs"]
mod shared;
#[path = "netns/stock.rs"]
mod stock;
