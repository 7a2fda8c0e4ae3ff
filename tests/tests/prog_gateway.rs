//! The gateway's programs on single packets. Needs root.

#[path = "prog_gateway/answers.rs"]
mod answers;
#[path = "prog_gateway/endings.rs"]
mod endings;
#[path = "prog_gateway/errors.rs"]
mod errors;
#[path = "prog_gateway/flows.rs"]
mod flows;
#[path = "prog_gateway/reasons.rs"]
mod reasons;
#[path = "prog_gateway/traffic.rs"]
mod traffic;
#[path = "prog_gateway/translation.rs"]
mod translation;
#[path = "prog_gateway/tricks.rs"]
mod tricks;
#[path = "prog_gateway/world.rs"]
mod world;
