//! The datapath against the real kernel: pins, links, tables. Needs root; everything happens in network namespaces,
//! a BPF file system and cgroups of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "datapath/filters.rs"]
mod filters;
#[path = "datapath/flows.rs"]
mod flows;
#[path = "datapath/harness.rs"]
mod harness;
#[path = "datapath/links.rs"]
mod links;
#[path = "datapath/pins.rs"]
mod pins;
#[path = "datapath/reading.rs"]
mod reading;
#[path = "datapath/strangers.rs"]
mod strangers;
#[path = "datapath/tables.rs"]
mod tables;
