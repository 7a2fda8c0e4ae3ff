//! What a program is told by every system call that reaches for a guarded address, and what becomes of its packets.

#[path = "netns_sockets/calls.rs"]
mod calls;
#[path = "netns_sockets/names.rs"]
mod names;
#[path = "netns_sockets/resolvers.rs"]
mod resolvers;
#[expect(dead_code, reason = "not every binary that shares it uses all of it")]
#[path = "netns/shared.rs"]
mod shared;
