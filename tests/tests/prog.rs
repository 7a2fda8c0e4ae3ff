//! The TC programs, one packet at a time. Needs CAP_BPF and CAP_NET_ADMIN; touches no device and pins nothing.

#[path = "prog/accounts.rs"]
mod accounts;
#[path = "prog/allow.rs"]
mod allow;
#[path = "prog/answers.rs"]
mod answers;
#[path = "prog/deny.rs"]
mod deny;
#[path = "prog/endings.rs"]
mod endings;
#[path = "prog/flows.rs"]
mod flows;
#[path = "prog/full.rs"]
mod full;
#[path = "prog/load.rs"]
mod load;
#[path = "prog/parse.rs"]
mod parse;
#[path = "prog/pool.rs"]
mod pool;
#[path = "prog/replies.rs"]
mod replies;
#[path = "prog/tricks.rs"]
mod tricks;
#[path = "prog/wire.rs"]
mod wire;
