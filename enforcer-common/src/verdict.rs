//! The verdict on a packet or call to a guarded address: one ladder, one pure function.
//!
//! Precedence, first match wins:
//!
//! 1. destination not guarded → pass, before anything about the source is asked
//! 2. workload not guardable → `NotGuardable`
//! 3. workload unknown → `UnknownWorkload`
//! 4. no destination at this address (the workload range and listed prefixes never have one) → `NoDestination`
//! 5. the destination does not offer this protocol and port → `PortNotOffered`
//! 6. no grant → `NoGrant`
//! 7. grant over → `Expired`
//! 8. no gateway has acknowledged it → `Pending`
//! 9. none of the gateways that have is answering → `TunnelDown`
//! 10. allow
//!
//! Whatever cannot be looked up counts as absent: every failure to a guarded address is a denial.

use crate::event::numbered;

numbered! {
    /// Why something was refused. The numbers are stable: they are in events and metrics.
    DropReason {
        /// An IP packet that cannot be parsed cannot be judged.
        NotParsed = 1 "NotParsed",
        /// A later fragment whose first fragment was not seen.
        LateFragment = 2 "LateFragment",
        /// A source route leads to a guarded address.
        SourceRouted = 3 "SourceRouted",
        /// Nobody is known at this interface with this address, or behind this socket.
        UnknownWorkload = 4 "UnknownWorkload",
        /// The interface belongs to a pod with other addresses.
        Spoofed = 5 "Spoofed",
        /// The pod has a way out that no wire hook sees.
        NotGuardable = 6 "NotGuardable",
        /// Guarded, but no destination has this address.
        NoDestination = 7 "NoDestination",
        /// The destination does not offer this protocol and port.
        PortNotOffered = 8 "PortNotOffered",
        /// No ServiceConnection grants it.
        NoGrant = 9 "NoGrant",
        /// The ServiceConnection's `validUntil` is over.
        Expired = 10 "Expired",
        /// Granted, but no gateway has acknowledged it yet.
        Pending = 11 "Pending",
        /// No gateway of the destination is answering.
        TunnelDown = 12 "TunnelDown",
        /// No room for another flow.
        FlowTableFull = 13 "FlowTableFull",
        /// The workload (on a node) or the node (at a gateway) has all the flows it may have.
        QuotaExceeded = 14 "QuotaExceeded",
        /// On its way out of the node in clear text to a guarded address.
        ClearText = 15 "ClearText",
        /// A guarded source address in clear text.
        ClearSource = 16 "ClearSource",
        /// On `enforcer0` without a socket: forwarded or translated by somebody else.
        NoSocket = 17 "NoSocket",
        /// Belongs to no live flow.
        NoFlow = 18 "NoFlow",
        /// The flow's grant was taken away.
        Revoked = 19 "Revoked",
        /// Larger than the tunnel carries; the sender was told.
        TooBig = 20 "TooBig",
        /// Neither TCP nor UDP, nor an ICMP error of a live flow.
        NotCarried = 21 "NotCarried",
        /// The gateway has no healthy backend for it.
        NoBackend = 22 "NoBackend",
        /// The gateway has no source port left towards this backend.
        PortsExhausted = 23 "PortsExhausted",
        /// `allowedBackends` does not have this backend.
        BackendNotAllowed = 24 "BackendNotAllowed",
        /// The node that sent it does not own this source address.
        UnknownNode = 25 "UnknownNode",
        /// A kernel helper failed.
        Internal = 26 "Internal",
    }
}

/// What is known when the verdict is made. `None` and `false` also stand for "could not be looked up".
#[expect(clippy::struct_excessive_bools, reason = "each is one independent question of the ladder")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    pub guarded: bool,
    pub not_guardable: bool,
    pub workload_known: bool,
    pub destination_known: bool,
    pub port_offered: bool,
    pub grant: Option<GrantFacts>,
}

/// What is known of the grant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GrantFacts {
    pub valid_until_ns: u64,
    /// A gateway has acknowledged it.
    pub acknowledged: bool,
    /// A gateway that has acknowledged it is answering.
    pub answering: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Not ours: on to the next program, untouched.
    Pass,
    /// Into the tunnel.
    Allow,
    Deny(DropReason),
}

/// The ladder of this module's documentation.
#[inline(always)]
pub const fn decide(facts: &Facts, now_ns: u64) -> Verdict {
    if !facts.guarded {
        return Verdict::Pass;
    }
    if facts.not_guardable {
        return Verdict::Deny(DropReason::NotGuardable);
    }
    if !facts.workload_known {
        return Verdict::Deny(DropReason::UnknownWorkload);
    }
    match &facts.grant {
        // A grant is written after its destination: it settles the two steps before it.
        Some(grant) => decide_grant(grant, now_ns),
        None if !facts.destination_known => Verdict::Deny(DropReason::NoDestination),
        None if !facts.port_offered => Verdict::Deny(DropReason::PortNotOffered),
        None => Verdict::Deny(DropReason::NoGrant),
    }
}

#[inline(always)]
const fn decide_grant(grant: &GrantFacts, now_ns: u64) -> Verdict {
    if grant.valid_until_ns <= now_ns {
        Verdict::Deny(DropReason::Expired)
    } else if !grant.acknowledged {
        Verdict::Deny(DropReason::Pending)
    } else if !grant.answering {
        Verdict::Deny(DropReason::TunnelDown)
    } else {
        Verdict::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100;
    const LIVE: GrantFacts = GrantFacts { valid_until_ns: NOW + 1, acknowledged: true, answering: true };
    const GRANTED: Facts = Facts {
        guarded: true,
        not_guardable: false,
        workload_known: true,
        destination_known: true,
        port_offered: true,
        grant: Some(LIVE),
    };

    #[test]
    fn the_truth_table_holds() {
        let no_grant = Facts { grant: None, ..GRANTED };
        let with = |grant| Facts { grant: Some(grant), ..GRANTED };
        let table = [
            (Facts { guarded: false, not_guardable: true, workload_known: false, ..GRANTED }, Verdict::Pass),
            (GRANTED, Verdict::Allow),
            (Facts { not_guardable: true, ..GRANTED }, Verdict::Deny(DropReason::NotGuardable)),
            (Facts { workload_known: false, ..GRANTED }, Verdict::Deny(DropReason::UnknownWorkload)),
            (no_grant, Verdict::Deny(DropReason::NoGrant)),
            (Facts { port_offered: false, ..no_grant }, Verdict::Deny(DropReason::PortNotOffered)),
            (
                Facts { destination_known: false, port_offered: false, ..no_grant },
                Verdict::Deny(DropReason::NoDestination),
            ),
            (with(GrantFacts { valid_until_ns: NOW, ..LIVE }), Verdict::Deny(DropReason::Expired)),
            (with(GrantFacts { acknowledged: false, ..LIVE }), Verdict::Deny(DropReason::Pending)),
            (
                with(GrantFacts { valid_until_ns: NOW, acknowledged: false, answering: false }),
                Verdict::Deny(DropReason::Expired),
            ),
            (with(GrantFacts { answering: false, ..LIVE }), Verdict::Deny(DropReason::TunnelDown)),
        ];
        for (facts, verdict) in table {
            assert_eq!(decide(&facts, NOW), verdict, "{facts:?}");
        }
    }

    #[test]
    fn the_numbers_of_the_reasons_are_stable_and_their_names_unique() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(usize::from(*reason as u8), index + 1, "{}", reason.name());
            assert_eq!(DropReason::from_raw(*reason as u8), Some(*reason));
        }
        let mut names: std::vec::Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
