//! Keeps the zone as objects change. A change costs what it touches. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Zone,
    service::{PortName, Service, label},
    zone::Names,
};
use crate::{
    model::{EndpointSlice, Kind, Labels, Object, ObjectKey, Spec},
    resolve::{Destination, DestinationPort, Resolved, SERVICE_NAME, host_name},
    source::kubernetes::MANAGED_BY,
    store::Snapshot,
};

/// `web.shop`: what stands before `.svc.` in the name of a Service.
type Host = Arc<str>;

pub(super) struct Book {
    zone: Zone,
    snapshot: Arc<Snapshot>,
    /// By host.
    destinations: BTreeMap<Host, Arc<Destination>>,
    /// EndpointSlices of a Service, whether there is one or not.
    slices: BTreeMap<Host, BTreeSet<ObjectKey>>,
    /// How many names there are in each namespace.
    namespaces: BTreeMap<Arc<str>, usize>,
}

impl Book {
    pub fn new(domain: &str) -> Self {
        Self {
            zone: Zone::unready(domain),
            snapshot: Arc::default(),
            destinations: BTreeMap::new(),
            slices: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    pub fn zone(&self) -> Arc<Zone> {
        Arc::new(self.zone.clone())
    }

    /// Brings the zone to what the objects say, and tells how many Services were looked at. `destinations` is what is
    /// new of those of ours; they have their names before any Service has.
    pub fn update(&mut self, snapshot: &Arc<Snapshot>, destinations: Option<&Resolved>) -> usize {
        let mut touched = BTreeSet::new();
        let before = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        for change in snapshot.since(&before) {
            match change.key.kind {
                Kind::Service => touched.extend(host(&change.key.namespace, &change.key.name)),
                Kind::EndpointSlice => {
                    for (object, is) in [(change.was, false), (change.is, true)] {
                        let service =
                            object.and_then(|object| service_of(change.key, &object.metadata.labels));
                        let Some(service) = service else { continue };
                        self.list(&service, change.key, is);
                        touched.insert(service);
                    }
                }
                _ => {}
            }
        }
        if let Some(resolved) = destinations {
            let destinations: BTreeMap<Host, Arc<Destination>> = resolved
                .destinations
                .iter()
                .map(|(key, is)| (host_name(key).into(), Arc::clone(is)))
                .collect();
            let before = std::mem::take(&mut self.destinations);
            let differs = |host: &&Host| before.get(*host) != destinations.get(*host);
            touched.extend(before.keys().chain(destinations.keys()).filter(differs).cloned());
            self.destinations = destinations;
        }
        let mut names = self.zone.names.take().unwrap_or_default();
        for host in &touched {
            let service = self.service(host).map(Arc::new);
            self.enter(&mut names, host, service);
        }
        self.zone.names = Some(names);
        touched.len()
    }

    fn list(&mut self, service: &Host, slice: &ObjectKey, is: bool) {
        let slices = self.slices.entry(Arc::clone(service)).or_default();
        if is {
            slices.insert(slice.clone());
        } else {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    fn service(&self, host: &Host) -> Option<Service> {
        if let Some(destination) = self.destinations.get(host) {
            return Some(of_ours(destination));
        }
        let (name, namespace) = host.split_once('.')?;
        let object = self.snapshot.objects.get(&ObjectKey::new(Kind::Service, namespace, name))?;
        let Spec::Service(spec) = &object.spec else { return None };
        let slices = self.slices.get(host).into_iter().flatten();
        let slices: Vec<_> =
            slices.filter_map(|key| slice(self.snapshot.objects.get(key)?, object)).collect();
        Service::new(object, spec, &slices)
    }

    fn enter(&mut self, names: &mut Names, host: &Host, service: Option<Arc<Service>>) {
        let before = names.services.get(host).cloned();
        if before == service {
            return;
        }
        let addresses =
            |service: &Option<Arc<Service>>| service.as_ref().map(|is| is.addresses()).unwrap_or_default();
        let (old, new) = (addresses(&before), addresses(&service));
        for address in old.symmetric_difference(&new) {
            let known = names.holders.get(address).map(|holders| &**holders).unwrap_or_default();
            let mut holders: Vec<Host> = known.iter().filter(|holder| *holder != host).cloned().collect();
            if new.contains(address) {
                holders.push(Arc::clone(host));
                holders.sort();
            }
            names.holders.set(address, (!holders.is_empty()).then(|| holders.into()));
        }
        if before.is_some() != service.is_some() {
            self.count(names, host, service.is_some());
        }
        names.services.set(host, service);
    }

    fn count(&mut self, names: &mut Names, host: &Host, more: bool) {
        let Some((_, namespace)) = host.split_once('.') else { return };
        let count = self.namespaces.entry(namespace.into()).or_default();
        *count = if more { *count + 1 } else { *count - 1 };
        match *count {
            0 => {
                self.namespaces.remove(namespace);
                Arc::make_mut(&mut names.namespaces).remove(namespace);
            }
            1 if more => drop(Arc::make_mut(&mut names.namespaces).insert(namespace.into())),
            _ => {}
        }
    }
}

fn of_ours(destination: &Destination) -> Service {
    let port = |port: &DestinationPort| Some((PortName::of_ours(port.protocol, &port.name())?, port.port));
    let addresses = [destination.v4.map(IpAddr::V4), destination.v6.map(IpAddr::V6)];
    Service::Destination {
        addresses: addresses.into_iter().flatten().collect(),
        ports: destination.ports.iter().filter_map(port).collect(),
    }
}

/// `None`: no API server would have taken it, and no question finds it.
fn host(namespace: &str, name: &str) -> Option<Host> {
    let is_name = |text: &str| label(text).is_some_and(|label| label == text);
    (is_name(namespace) && is_name(name)).then(|| format!("{name}.{namespace}").into())
}

fn service_of(slice: &ObjectKey, labels: &Labels) -> Option<Host> {
    host(&slice.namespace, labels.get(SERVICE_NAME)?)
}

/// Of a Service that our controller wrote only the slices count that it wrote as well: a stranger's adds no address to
/// a destination.
fn slice<'a>(slice: &'a Object, service: &Object) -> Option<&'a EndpointSlice> {
    let is_ours =
        |object: &Object| object.metadata.labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1);
    let Spec::EndpointSlice(found) = &slice.spec else { return None };
    (!is_ours(service) || is_ours(slice)).then_some(found)
}
