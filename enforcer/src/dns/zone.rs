//! What there is under the cluster domain and behind the addresses of Services, and what follows for a question. Pure.
//!
//! After "Kubernetes DNS-Based Service Discovery", version 1.1.0. Names of pods are answered in its deprecated form: an
//! address that is in the name, whatever namespace stands behind it. That says nothing of who is there, and needs no
//! pod to be watched.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use hickory_proto::rr::Name;

use super::{
    service::{Addresses, PortName, Service},
    shards::Shards,
};
use crate::model::Transport;

/// All names of the cluster domain.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    pub(super) domain: Name,
    /// `None`: it is not known yet what there is, so that nothing can be said of any name.
    pub(super) names: Option<Names>,
}

/// Keys of Services are as in `web.shop`, in lower case.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Names {
    pub services: Shards<Arc<str>, Arc<Service>>,
    /// Services that have an address.
    pub holders: Shards<IpAddr, Arc<[Arc<str>]>>,
    /// Those with names in them.
    pub namespaces: Arc<BTreeSet<Arc<str>>>,
}

/// What a name is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Not in a zone of ours: we are the wrong one to ask.
    Outside,
    /// Nothing can be said yet.
    NotReady,
    /// No such name.
    Nothing,
    /// The domain itself.
    Apex,
    /// There are names below it, and it has no records.
    Branch,
    Version,
    Addresses(Addresses),
    Alias(Name),
    Ports(Vec<Target>),
    /// The names of an address.
    Pointers(Vec<Name>),
}

/// Where a named port is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub name: Name,
    pub port: u16,
    pub addresses: Addresses,
}

impl Zone {
    /// One that knows nothing yet. `domain` is a DNS name.
    pub fn unready(domain: &str) -> Self {
        let mut domain = Name::from_utf8(domain).unwrap_or_default().to_lowercase();
        domain.set_fqdn(true);
        Self { domain, names: None }
    }

    pub fn is_ready(&self) -> bool {
        self.names.is_some()
    }

    /// `name` in any case.
    pub(super) fn find(&self, name: &Name) -> Found {
        if !self.domain.zone_of(name) {
            return self.reverse(name);
        }
        let Some(names) = &self.names else { return Found::NotReady };
        let own = usize::from(self.domain.num_labels());
        let labels: Option<Vec<String>> = name.iter().rev().skip(own).map(text).collect();
        let labels = labels.unwrap_or_else(|| vec![String::new()]);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match *labels {
            [] => Found::Apex,
            ["dns-version"] => Found::Version,
            ["svc" | "pod"] => Found::Branch,
            ["svc", namespace] if names.namespaces.contains(namespace) => Found::Branch,
            ["svc", namespace, service, ref below @ ..] => {
                let host = format!("{service}.{namespace}");
                names.services.get(host.as_str()).map_or(Found::Nothing, |is| self.within(&host, is, below))
            }
            ["pod", namespace] if super::service::label(namespace).is_some() => Found::Branch,
            ["pod", namespace, pod] if super::service::label(namespace).is_some() => {
                address_in(pod).map_or(Found::Nothing, |address| Found::Addresses([address].into()))
            }
            _ => Found::Nothing,
        }
    }

    /// `below`: labels that stand before the name of the Service, nearest first.
    fn within(&self, host: &str, service: &Service, below: &[&str]) -> Found {
        match (service, below) {
            (Service::External(name), []) => Found::Alias(name.clone()),
            (_, []) => Found::Addresses(service.addresses()),
            (Service::Headless { hosts, .. }, [name]) if hosts.contains_key(*name) => {
                Found::Addresses(hosts.get(*name).cloned().unwrap_or_default())
            }
            (_, [protocol]) => match protocol.strip_prefix('_') {
                Some(protocol) if service.has_port(protocol) => Found::Branch,
                _ => Found::Nothing,
            },
            (_, [protocol, port]) => self.port(host, service, protocol, port),
            _ => Found::Nothing,
        }
    }

    fn port(&self, host: &str, service: &Service, protocol: &str, port: &str) -> Found {
        let transport = match protocol {
            "_tcp" => Transport::Tcp,
            "_udp" => Transport::Udp,
            "_sctp" => Transport::Sctp,
            _ => return Found::Nothing,
        };
        let name = port.strip_prefix('_').and_then(|port| PortName::new(transport, port));
        let Some(port) = name else { return Found::Nothing };
        let targets = match service {
            Service::Destination { addresses, ports } | Service::ClusterIp { addresses, ports } => {
                let target = |port: &u16| Target {
                    name: self.name(host, None),
                    port: *port,
                    addresses: addresses.clone(),
                };
                ports.get(&port).map(target).into_iter().collect()
            }
            Service::External(_) => Vec::new(),
            Service::Headless { hosts, ports } => {
                let target = |(name, port): &(Arc<str>, u16)| Target {
                    name: self.name(host, Some(name)),
                    port: *port,
                    addresses: hosts.get(name).cloned().unwrap_or_default(),
                };
                ports.get(&port).into_iter().flatten().map(target).collect()
            }
        };
        if targets.is_empty() { Found::Nothing } else { Found::Ports(targets) }
    }

    /// Only what is exactly an address that a Service has is ours: others may know the rest.
    fn reverse(&self, name: &Name) -> Found {
        let address = name.parse_arpa_name().ok().filter(|net| net.prefix_len() == net.max_prefix_len());
        let Some(address) = address.map(|net| net.addr()).filter(|address| Name::from(*address) == *name)
        else {
            return Found::Outside;
        };
        let Some(names) = &self.names else { return Found::NotReady };
        let holders = names.holders.get(&address).map(|holders| &**holders).unwrap_or_default();
        let holders: Vec<_> =
            holders.iter().filter_map(|host| Some((host, names.services.get(host)?))).collect();
        let Some(best) = holders.iter().map(|(_, service)| service.rank()).min() else {
            return Found::Outside;
        };
        let mut pointers = Vec::new();
        for (host, service) in holders.iter().filter(|(_, service)| service.rank() == best) {
            match &***service {
                Service::Headless { hosts, .. } => {
                    let own = hosts.iter().filter(|(_, addresses)| addresses.contains(&address));
                    pointers.extend(own.map(|(name, _)| self.name(host, Some(name))));
                }
                _ => pointers.push(self.name(host, None)),
            }
        }
        Found::Pointers(pointers)
    }

    /// `db-0.web.shop.svc.cluster.local.`; all of its labels have been found to be labels.
    fn name(&self, host: &str, endpoint: Option<&str>) -> Name {
        let labels = endpoint.into_iter().chain(host.split('.')).chain(["svc"]).map(str::as_bytes);
        Name::from_labels(labels.chain(self.domain.iter())).unwrap_or_default()
    }
}

/// A label in lower case; `None` where it is no text.
fn text(label: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase())
}

/// The address that the label of a pod holds: `10-244-0-3`, `fd00--3`.
fn address_in(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6))
}
