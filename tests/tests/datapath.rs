//! The datapath against the real kernel: pins, links, tables. Needs root; everything happens in network namespaces,
//! a BPF file system and cgroups of its own.

#[path = "datapath/harness.rs"]
mod harness;
#[path = "datapath/links.rs"]
mod links;
#[path = "datapath/pins.rs"]
mod pins;
#[path = "datapath/tables.rs"]
mod tables;
