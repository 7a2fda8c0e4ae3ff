//! Translation of ICMP errors about packets of tracked flows.
//!
//! An error carries the head of the packet it is about, as its reporter saw that packet. Whoever translates the
//! packet's addresses has to translate them in there as well, or the receiver finds no socket for the error.
//!
//! ```text
//!   outer header      reporter -> sender of the packet
//!   ICMP header       type, code, MTU
//!   embedded packet   sender -> its peer, at least eight bytes of its TCP or UDP header
//! ```

use enforcer_common::{Addr, Port, verdict::DropReason};

use crate::{
    nat::{self, Embedded, End},
    packet::Packet,
    skb::Skb,
};

/// What an error becomes: who reports it to whom, and both ends of the embedded packet.
pub struct Translated {
    pub reporter: Addr,
    pub receiver: Addr,
    pub source: Addr,
    pub destination: Addr,
    pub source_port: Port,
    pub destination_port: Port,
}

/// Rewrites the error `outer` about the packet `inner` for the other side of a translation.
///
/// # Errors
/// [`DropReason::Internal`] where a helper fails; the packet must not be sent.
#[inline(never)]
pub fn translate(
    skb: Skb,
    outer: &mut Packet,
    inner: &mut Packet,
    to: &Translated,
) -> Result<(), DropReason> {
    let source = Embedded { address: to.source, port: to.source_port };
    nat::rewrite_embedded(skb, outer, inner, End::Source, &source)?;
    let destination = Embedded { address: to.destination, port: to.destination_port };
    nat::rewrite_embedded(skb, outer, inner, End::Destination, &destination)?;
    nat::rewrite(skb, outer, End::Source, &to.reporter, Port::NONE)?;
    nat::rewrite(skb, outer, End::Destination, &to.receiver, Port::NONE)
}
