//! Where objects come from. Each source publishes [`crate::store::Snapshot`]s through a watch channel; nothing behind
//! the channel knows which source it was.

mod document;
pub mod manifests;
