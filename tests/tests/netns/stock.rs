//! A stock WireGuard in the place of `enforcer tunnel`.
