//! The commands of a person's shell, as the binary that a person runs: on a folder, and at a real API server.

#[path = "control_commands/completions.rs"]
mod completions;
#[path = "control_commands/desk.rs"]
mod desk;
#[path = "control_commands/folder.rs"]
mod folder;
#[path = "control_commands/server.rs"]
mod server;
#[path = "control_commands/waiting.rs"]
mod waiting;
