//! One cycle, from what is known to what the kernel, the tunnel and the nodes are told.
//!
//! The order is the contract: programs before peers, denials before grants, the kernel before `Live`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use enforcer_common::{
    Addr,
    config::{ANNOUNCE_PORT, GatewayConfig},
};
use tokio::time::Instant;
use tracing::warn;

use super::{Listening, Manager};
use crate::{
    announce::server::{self, ServerConfig},
    datapath::{
        fake::FakeGateway,
        gateway::{GatewayDatapath as _, GwOp},
        kernel::Device,
        program::Program,
    },
    gateway::{
        allowed::{self, Allowed},
        clock,
        compile::{self, Compiled, Inputs},
        far_end::{self, chain},
        monitor::Names,
        network::{self, TunnelNetwork},
        store,
    },
    keygen,
    reconcile::{carry_out_gateway, plan_gateway},
    resolve::Gateway,
};

/// The condition that is false while the bindings file is not as it should be.
const BINDINGS_KEPT: &str = "BindingsKept";

/// Why there is nothing to bring about.
enum Standstill {
    /// It is not known what should be: what the kernel has stays.
    Nothing,
    /// It is known that there is no such gateway.
    NoGateway,
}

impl Manager {
    pub(super) async fn cycle(&mut self) {
        self.dirty = false;
        if self.objects_due {
            self.resolve_objects();
        }
        self.problems.clear();
        self.tell_keep_problem();
        match self.own_gateway() {
            Ok(gateway) => self.bring_about(&gateway).await,
            Err(Standstill::Nothing) => {}
            Err(Standstill::NoGateway) => self.take_everything_back(),
        }
        self.keep_bindings();
        let before = Arc::clone(&self.channels.names.borrow());
        let clock = self.boot_time_unix_ns;
        let names = Names::new(&self.resolved, &self.registry, &self.numbers, clock, &before);
        self.channels.names.send_replace(Arc::new(names));
    }

    /// This gateway's object, if it can be worked with.
    fn own_gateway(&mut self) -> Result<Gateway, Standstill> {
        let name = &self.settings.name;
        let Some(gateway) = self.resolved.gateways.get(name).cloned() else {
            let message = format!("TunnelGateway {name} is not there, not valid, or has no addresses yet");
            self.problems.insert("Valid", ("NotResolved", message));
            // A document that cannot be read may be the very one: a slip of the pen revokes nothing.
            let known = self.channels.states.borrow().is_some()
                && self.channels.snapshots.borrow().problems.is_empty();
            return Err(if known { Standstill::NoGateway } else { Standstill::Nothing });
        };
        if gateway.public_key != keygen::public_key(&self.settings.private_key) {
            let message = format!("the publicKey of TunnelGateway {name} is not that of --key");
            self.problems.insert("Valid", ("OtherKey", message));
            return Err(Standstill::Nothing);
        }
        Ok(gateway)
    }

    /// A TunnelGateway that was deleted or is refused grants nothing to anybody.
    fn take_everything_back(&mut self) {
        let grants = std::mem::take(&mut self.actual.grants);
        let tables = self.actual.clone();
        self.actual.grants = grants;
        self.apply(Compiled { tables, ..Compiled::default() });
        self.acknowledge();
        self.revoke(clock::boot_ns());
    }

    async fn bring_about(&mut self, gateway: &Gateway) {
        let Some(network) = self.tunnel_network(gateway).await else { return };
        let Some(allowed) = self.backend_network(gateway, network.ifindex).await else { return };
        self.registry.retain_nodes(|node| self.resolved.nodes.contains_key(node));
        let targets = compile::targets(&gateway.name, &self.resolved, &allowed);
        self.health.set_targets(&targets, &std::mem::take(&mut self.adopted));
        self.channels.targets.send_if_modified(|current| {
            let differs = *current != targets;
            *current = targets;
            differs
        });
        let inputs = Inputs {
            gateway,
            resolved: &self.resolved,
            registry: &self.registry,
            pods: &self.pods,
            allowed: &allowed,
            ways: &self.ways.ways,
            health: &self.health,
            config: GatewayConfig {
                gateway4: Addr::v4(gateway.v4),
                gateway6: Addr::v6(gateway.v6),
                tunnel_ifindex: network.ifindex,
                tunnel_mtu: network.mtu,
            },
            boot_time_unix_ns: self.boot_time_unix_ns,
        };
        let compiled = compile::compile(&inputs, &self.actual, &mut self.numbers, &self.compiled);
        self.apply(compiled);
        self.keep_bindings();
        self.listen(gateway, &network);
        self.want_peers(gateway);
        self.acknowledge();
        self.revoke(clock::boot_ns());
    }

    fn acknowledge(&mut self) {
        let actual = (!self.exact).then_some(&self.actual);
        self.sessions.acknowledge(&self.registry, &self.compiled, actual);
    }

    /// Makes sure of the tunnel device, with the program on it before anything can come through.
    async fn tunnel_network(&mut self, gateway: &Gateway) -> Option<TunnelNetwork> {
        let wanted =
            self.network.as_ref().map(|network| TunnelNetwork::of(gateway, &self.resolved, network.ifindex));
        if !self.network_due && wanted == self.network {
            return wanted;
        }
        let ifindex = match self.far_end.ensure(&self.settings.device, gateway.mtu).await {
            Ok(ifindex) => ifindex,
            Err(error) => return self.failed("TunnelUp", "NoDevice", &error),
        };
        self.attach(Program::GwFromTunnel, ifindex, self.settings.device.clone())?;
        let network = TunnelNetwork::of(gateway, &self.resolved, ifindex);
        if let Err(error) = network.apply(&self.netlink).await {
            return self.failed("TunnelUp", "NoNetwork", &error);
        }
        self.network = Some(network.clone());
        Some(network)
    }

    /// Finds the ways to the backends and puts the program on the devices they lead through.
    async fn backend_network(&mut self, gateway: &Gateway, tunnel: u32) -> Option<Allowed> {
        if self.network_due {
            match network::own(&self.netlink, &self.resolved).await {
                Ok(own) => self.own = own,
                Err(error) => return self.failed("Programmed", "NoAddresses", &error),
            }
        }
        let allowed = allowed::compile(&gateway.allowed_backends, &self.own);
        if !allowed.problems.is_empty() {
            self.problems.insert("AllowedBackends", ("PartlyRefused", allowed.problems.join("; ")));
        }
        if self.network_due {
            let ours = self.resolved.destinations.values();
            let ours = ours.filter(|destination| destination.gateways.contains(&gateway.name));
            let backends = ours.flat_map(|destination| destination.endpoints.iter().copied()).collect();
            match network::ways(&self.netlink, &backends, tunnel).await {
                Ok(ways) => self.ways = ways,
                Err(error) => return self.failed("Programmed", "NoRoutes", &error),
            }
            for (ifindex, name) in self.ways.devices.clone() {
                self.attach(Program::GwFromBackend, ifindex, name)?;
            }
            self.network_due = false;
        }
        Some(allowed)
    }

    fn attach(&mut self, program: Program, ifindex: u32, name: String) -> Option<()> {
        let attached = (program, ifindex, name);
        if self.attached.contains(&attached) {
            return Some(());
        }
        let device = Device { netns: None, name: attached.2.clone(), ifindex };
        match self.datapath.attach(program, &device) {
            Ok(()) => {
                self.attached.insert(attached);
                Some(())
            }
            Err(error) => self.failed("Programmed", "NotAttached", &error),
        }
    }

    /// Brings the maps to what was compiled; what failed is in status and tried again in the next cycle.
    fn apply(&mut self, next: Compiled) {
        self.settle();
        let mut plan = if self.exact {
            let (have, want) = self.compiled.difference(&next);
            plan_gateway(&have, &want)
        } else {
            plan_gateway(&self.actual, &next.whole())
        };
        self.compiled = next;
        let whole = plan.len();
        if self.grace.is_some() {
            plan.retain(|op| !matches!(op, GwOp::RemoveGrant(_)));
        }
        self.exact = plan.len() == whole;
        let failures = carry_out_gateway(&mut self.datapath, &plan);
        self.forget_stats(&plan);
        if plan.iter().any(|op| matches!(op, GwOp::RemoveGrant(_))) {
            self.revoker.grants_went();
        }
        if let Some((op, error)) = failures.first() {
            let message =
                format!("{} of {} changes failed, the first: {}", failures.len(), plan.len(), chain(error));
            warn!(?op, reason = message, "the kernel's maps are not as they should be");
            self.problems.insert("Programmed", ("MapErrors", message));
            self.dirty = true;
            self.exact = false;
            match self.datapath.dump() {
                Ok(tables) => self.actual = tables,
                Err(error) => warn!(error = chain(&error), "cannot read the kernel's maps"),
            }
            return;
        }
        let mut shadow = FakeGateway { tables: std::mem::take(&mut self.actual) };
        // A map in memory takes everything.
        carry_out_gateway(&mut shadow, &plan);
        self.actual = shadow.tables;
    }

    /// Grants that go leave their statistics behind, and the map of those has an end as well.
    fn forget_stats(&mut self, plan: &[GwOp]) {
        let gone = plan.iter().filter_map(|op| match op {
            GwOp::RemoveGrant(key) => self.actual.grants.get(key).map(|grant| grant.id),
            _ => None,
        });
        for id in gone {
            if let Err(error) = self.datapath.forget_grant_stats(id) {
                warn!(error = chain(&error), "statistics of a grant that is gone stay");
            }
        }
    }

    /// Ends the time in which nothing is pruned, once every node has spoken or it is over.
    fn settle(&mut self) {
        let spoken = self.resolved.nodes.keys().all(|node| self.sessions.is_ready(node));
        if self.grace.is_some_and(|until| spoken || until <= Instant::now()) {
            self.grace = None;
            self.revoker.grants_went();
        }
    }

    fn listen(&mut self, gateway: &Gateway, network: &TunnelNetwork) {
        let known = self.resolved.nodes.values().flat_map(|node| {
            [IpAddr::V4(node.v4), IpAddr::V6(node.v6)].map(|address| (address, node.name.clone()))
        });
        let known = Arc::new(known.collect());
        self.channels.peers.send_if_modified(|current| {
            let differs = *current != known;
            *current = known;
            differs
        });
        let addresses: Vec<SocketAddr> = [IpAddr::V4(gateway.v4), IpAddr::V6(gateway.v6)]
            .map(|address| SocketAddr::new(address, ANNOUNCE_PORT))
            .into();
        let same =
            |listening: &Listening| listening.ifindex == network.ifindex && listening.addresses == addresses;
        if self.listening.as_ref().is_some_and(same) {
            return;
        }
        self.listening = None;
        let config = ServerConfig {
            addresses: addresses.clone(),
            device: Some(self.settings.device.clone()),
            gateway: gateway.name.clone(),
        };
        match server::spawn(&config, &self.channels.peers.subscribe(), &self.channels.say) {
            Ok(server) => {
                self.listening = Some(Listening { ifindex: network.ifindex, addresses, _server: server });
            }
            Err(error) => drop(self.failed::<()>("Listening", "NotBound", &error)),
        }
    }

    /// The peers come last: by now everything stands that their packets will meet.
    fn want_peers(&self, gateway: &Gateway) {
        let settings = &self.settings;
        let config = far_end::config(
            &settings.device,
            settings.private_key,
            gateway,
            &self.resolved,
            settings.listen_port,
        );
        self.channels.wanted.send_if_modified(|current| {
            let differs = current.as_ref() != Some(&config);
            *current = Some(config);
            differs
        });
    }

    /// Writes the bindings file where what nodes have announced differs: they are told of nothing before. Numbers alone
    /// wait for the next tick, because those in the kernel are never given again.
    pub(super) fn keep_bindings(&mut self) {
        if self.kept.0 != self.registry {
            self.keep();
        }
    }

    /// Writes the bindings file where it differs.
    pub(super) fn keep(&mut self) {
        let connections = &self.resolved.connections;
        if !connections.is_empty() && self.numbers.connections_known() != connections.len() {
            let keys = connections.iter().map(|connection| &connection.key);
            let known: BTreeSet<(&str, &str)> =
                keys.map(|key| (key.namespace.as_str(), key.name.as_str())).collect();
            self.numbers.retain(|name| name.split_once('/').is_some_and(|name| known.contains(&name)));
        }
        if self.kept.0 != self.registry || self.kept.1 != self.numbers {
            if let Err(error) = store::save(&self.settings.bindings, &self.registry, &self.numbers) {
                let _nothing = self.failed::<()>(BINDINGS_KEPT, "NotWritten", &error);
                self.keep_problem = Some(chain(&error));
                return;
            }
            self.kept = (self.registry.clone(), self.numbers.clone());
        }
        if self.keep_problem.take().is_some() {
            self.problems.remove(BINDINGS_KEPT);
        }
    }

    /// It is a problem until the file is written, whatever the cycles in between do.
    fn tell_keep_problem(&mut self) {
        if let Some(message) = &self.keep_problem {
            self.problems.insert(BINDINGS_KEPT, ("NotWritten", message.clone()));
        }
    }

    fn failed<T>(
        &mut self,
        condition: &'static str,
        reason: &'static str,
        error: &dyn std::error::Error,
    ) -> Option<T> {
        let message = chain(error);
        warn!(condition, error = message, "the gateway is not as it should be");
        self.problems.insert(condition, (reason, message));
        self.dirty = true;
        None
    }
}
