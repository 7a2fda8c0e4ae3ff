//! The control socket (unix, mode 0600) of a role: what it knows and what it sees, for `status`, `get`, `describe`
//! and `monitor`.
//!
//! A request is one JSON line, the answer one JSON line; `monitor` answers with a line an event until the client goes.

mod client;
pub mod explain;
mod render;
mod server;
mod views;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    model::{Kind, ObjectKey},
    resolve::Resolved,
    state::{ObjectStatus, State},
    store::Snapshot,
};

pub use client::{ClientError, ask, events, find_socket};
pub(crate) use render::object as render;
pub use server::serve;
pub use views::{Asked, Views};

/// What a role knows; the socket answers from it.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub snapshot: Arc<Snapshot>,
    pub resolved: Arc<Resolved>,
    pub state: Option<Arc<State>>,
    /// What this role knows of single objects, on top of the controller's status.
    pub object_status: BTreeMap<ObjectKey, ObjectStatus>,
    /// `status -o json`: the role's own health. Free form, but `role`, `name` and `conditions` are always there.
    pub role: Value,
}

/// One line of `monitor`: an event of the kernel with names instead of numbers.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitorEvent {
    /// RFC 3339, UTC.
    pub time: String,
    /// `denied`, `opened`, `reset`; `device-guarded`, with `interface` and `explanation` alone: a device that came has
    /// its programs from this moment on.
    pub kind: String,
    /// `connect`, `from_pod`, …
    pub hook: String,
    /// Name of the drop reason; empty for none.
    pub reason: String,
    pub protocol: String,
    pub source: String,
    pub source_port: u16,
    pub destination: String,
    pub destination_port: u16,
    /// `namespace/name` of the pod; empty where it is not known.
    pub pod: String,
    /// `Kind namespace/name`; empty where there is none at this address.
    pub destination_name: String,
    /// `namespace/name` of the ServiceConnection that is charged, or that came nearest.
    pub connection: String,
    /// Why in words: the first term that failed of the connection that came nearest.
    pub explanation: String,
    pub pid: u32,
    pub process: String,
    pub interface: u32,
}

/// What a client can ask.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Answer: [`View::role`].
    Status,
    /// Answer: the objects as Kubernetes would show them, `status` included, in the order of their names.
    Get {
        kind: Kind,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Answer: the steps of [`explain::explain`].
    Explain(explain::Question),
    /// Answers: [`MonitorEvent`]s without end.
    Monitor,
}

/// The line that answers a [`Request`]; `monitor` sends bare events after its first `Ok`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Ok(Value),
    Error(String),
}
