//! What is full, missing or broken: the new is denied and the old goes on, and a person is told in words that help.

#[path = "netns_full/broken.rs"]
mod broken;
#[path = "netns_full/disks.rs"]
mod disks;
#[path = "netns_full/events.rs"]
mod events;
#[path = "netns/shared.rs"]
mod shared;
#[path = "netns_full/starts.rs"]
mod starts;
#[path = "netns_full/tables.rs"]
mod tables;
