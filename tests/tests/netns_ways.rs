//! Ways out of the node in clear text towards guarded addresses: none may lead anywhere.
//!
//! The instruments are captures: on the underlay, where no packet outside the tunnel may have a guarded address in
//! it, and on the tunnel's device, where none of the attempts may arrive either. Every sender also sends to an address
//! that nobody guards; a test only ends when the underlay has shown each of those packets.

#[path = "netns_ways/frames.rs"]
mod frames;
#[path = "netns_ways/inbound.rs"]
mod inbound;
#[path = "netns_ways/instrument.rs"]
mod instrument;
#[path = "netns_ways/modules.rs"]
mod modules;
#[path = "netns_ways/outbound.rs"]
mod outbound;
#[path = "netns_ways/peers.rs"]
mod peers;
#[path = "netns_ways/places.rs"]
mod places;
#[path = "netns/shared.rs"]
mod shared;
