//! Sizes: what is larger than the tunnel arrives whole, or its sender learns what fits; and what devices leave to
//! others (segmentation, checksums) is right at the receiver.

#[path = "netns_mtu/behind.rs"]
mod behind;
#[path = "netns_mtu/large.rs"]
mod large;
#[path = "netns_mtu/links.rs"]
mod links;
#[expect(dead_code, reason = "not every binary that shares it uses all of it")]
#[path = "netns/shared.rs"]
mod shared;
