//! What the gateway says about itself, when somebody asks.

use std::sync::Arc;

use serde_json::json;

use super::Manager;
use crate::{control::View, gateway::status, source::informed};

impl Manager {
    pub(super) fn publish(&self) {
        let counters = self.datapath.counters().ok();
        let tunnel = self.channels.tunnel.borrow().clone();
        let mut problems = self.problems.clone();
        if let Some(error) = &tunnel.error {
            problems.insert("TunnelUp", ("NotConfigured", error.clone()));
        }
        let mut role = status::role(&status::Facts {
            name: &self.settings.name,
            problems: &problems,
            gateway: self.resolved.gateways.get(&self.settings.name),
            device: &self.settings.device,
            tunnel_mode: self.far_end.mode(),
            tunnel: &tunnel,
            resolved: &self.resolved,
            registry: &self.registry,
            sessions: &self.sessions,
            compiled: &self.compiled,
            actual: &self.actual,
            pressure: &self.pressure,
            counters: counters.as_ref(),
            changed_settings: &self.settings.changed_sysctls,
        });
        if let (Some(heard), Some(conditions)) = (&self.channels.heard, role["conditions"].as_array_mut()) {
            conditions.push(json!(informed(&heard.borrow())));
        }
        self.channels.asked.answer(View {
            snapshot: Arc::clone(&self.channels.snapshots.borrow()),
            resolved: Arc::clone(&self.resolved),
            state: self.channels.states.borrow().clone(),
            object_status: status::objects(&self.compiled),
            role,
        });
    }
}
