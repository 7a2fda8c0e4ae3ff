//! What there is under the cluster domain, and what follows for a question. Pure.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::resolve::{Destination, Resolved, host_name};

/// All names of the cluster domain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Zone {
    /// Lower case, without the dot at the end: `cluster.local`.
    domain: String,
    /// Full names. `None`: there is no state yet, so that nothing can be said of any name.
    names: Option<BTreeMap<String, Addresses>>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// What a name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// Not in the cluster domain: we are the wrong one to ask.
    Outside,
    /// Nothing can be said yet.
    NotReady,
    /// The domain itself.
    Apex,
    /// There are names below it, and it has no records.
    Branch,
    Service(Addresses),
    /// No such name.
    Nothing,
}

impl Zone {
    pub fn new(domain: &str, resolved: Option<&Resolved>) -> Self {
        let domain = domain.trim_end_matches('.').to_lowercase();
        let names = resolved.map(|resolved| {
            let name = |destination: &Arc<Destination>| {
                let addresses = Addresses { v4: destination.v4, v6: destination.v6 };
                (format!("{}.svc.{domain}", host_name(&destination.key)), addresses)
            };
            resolved.destinations.values().map(name).collect()
        });
        Self { domain, names }
    }

    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `name` in any case, with or without the dot at the end.
    pub fn find(&self, name: &str) -> Found {
        let name = name.trim_end_matches('.').to_lowercase();
        let is_apex = name == self.domain;
        if !is_apex && !is_below(&name, &self.domain) {
            return Found::Outside;
        }
        let Some(names) = &self.names else { return Found::NotReady };
        match names.get(&name) {
            Some(addresses) => Found::Service(*addresses),
            None if is_apex => Found::Apex,
            None if names.keys().any(|service| is_below(service, &name)) => Found::Branch,
            None => Found::Nothing,
        }
    }
}

fn is_below(name: &str, branch: &str) -> bool {
    name.strip_suffix(branch).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Kind, ObjectKey},
        resolve::Destination,
    };

    #[test]
    fn a_name_is_what_the_objects_make_it() {
        let key = ObjectKey::new(Kind::KeyValueStore, "shop", "cart");
        let addresses = Addresses { v4: Some(Ipv4Addr::new(198, 18, 0, 7)), v6: None };
        let destination = Destination {
            key: key.clone(),
            number: 7,
            v4: addresses.v4,
            v6: addresses.v6,
            ports: Vec::new(),
            gateways: Vec::new(),
            endpoints: Vec::new(),
            fqdn: String::new(),
        };
        let resolved =
            Resolved { destinations: [(key, Arc::new(destination))].into(), ..Resolved::default() };
        let zone = Zone::new("Cluster.Local.", Some(&resolved));
        let table = [
            ("keyvaluestore-cart.shop.svc.cluster.local.", Found::Service(addresses)),
            ("KeyValueStore-Cart.shop.svc.CLUSTER.local", Found::Service(addresses)),
            ("cluster.local.", Found::Apex),
            ("svc.cluster.local.", Found::Branch),
            ("shop.svc.cluster.local.", Found::Branch),
            ("op.svc.cluster.local.", Found::Nothing),
            ("cart.shop.svc.cluster.local.", Found::Nothing),
            ("x.keyvaluestore-cart.shop.svc.cluster.local.", Found::Nothing),
            ("othercluster.local.", Found::Outside),
            ("local.", Found::Outside),
            (".", Found::Outside),
            ("7.0.18.198.in-addr.arpa.", Found::Outside),
        ];
        for (name, expected) in table {
            assert_eq!(zone.find(name), expected, "{name}");
        }
        let unready = Zone::new("cluster.local", None);
        assert_eq!(unready.find("shop.svc.cluster.local"), Found::NotReady);
        assert_eq!(unready.find("example.org"), Found::Outside);
    }
}
