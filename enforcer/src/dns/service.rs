//! What one Service is in DNS, after its own words and those of its EndpointSlices. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use hickory_proto::rr::Name;

use crate::model::{
    AddressType, ClusterPort, EndpointSlice, Labels, Object, Protocol, ServiceSpec, SliceEndpoint, Transport,
};

/// Before `publishNotReadyAddresses` there was this annotation; the specification names it.
const TOLERATE_UNREADY: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";

pub(super) type Addresses = BTreeSet<IpAddr>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Service {
    /// A destination of ours.
    Destination { addresses: Addresses, ports: BTreeMap<PortName, u16> },
    /// It has addresses of its own.
    ClusterIp { addresses: Addresses, ports: BTreeMap<PortName, u16> },
    /// It is another name for what somebody else answers.
    External(Name),
    /// It is its ready endpoints, by host name. Ports are those of the endpoints.
    Headless { hosts: BTreeMap<Arc<str>, Addresses>, ports: BTreeMap<PortName, BTreeSet<(Arc<str>, u16)>> },
}

/// Labels of a named port, without their underscores: `tcp`, `http`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PortName {
    pub protocol: &'static str,
    pub name: Box<str>,
}

impl PortName {
    /// `None`: the port has no name that can be asked for.
    pub fn new(protocol: Transport, name: &str) -> Option<Self> {
        let protocol = match protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
            Transport::Unknown => return None,
        };
        let name = label(name)?.into();
        Some(Self { protocol, name })
    }

    pub fn of_ours(protocol: Protocol, name: &str) -> Option<Self> {
        Self::new(if protocol == Protocol::Tcp { Transport::Tcp } else { Transport::Udp }, name)
    }
}

impl Service {
    /// `None`: there is nothing to say of the name, not even that it is there.
    pub fn new(object: &Object, spec: &ServiceSpec, slices: &[&EndpointSlice]) -> Option<Self> {
        if spec.kind == "ExternalName" {
            return external(&spec.external_name).map(Self::External);
        }
        let texts = if spec.cluster_ips.is_empty() {
            std::slice::from_ref(&spec.cluster_ip)
        } else {
            &spec.cluster_ips
        };
        let addresses: Addresses = texts.iter().filter_map(|text| text.parse().ok()).collect();
        if addresses.is_empty() {
            let hosts = headless(object, spec, slices);
            return matches!(&hosts, Self::Headless { hosts, .. } if !hosts.is_empty()).then_some(hosts);
        }
        Some(Self::ClusterIp { addresses, ports: named(&spec.ports) })
    }

    /// Of all hosts.
    pub fn addresses(&self) -> Addresses {
        match self {
            Self::Destination { addresses, .. } | Self::ClusterIp { addresses, .. } => addresses.clone(),
            Self::External(_) => Addresses::new(),
            Self::Headless { hosts, .. } => hosts.values().flatten().copied().collect(),
        }
    }

    /// Whose name an address leads back to, where several have it: the lower.
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Destination { .. } => 0,
            Self::ClusterIp { .. } => 1,
            Self::External(_) | Self::Headless { .. } => 2,
        }
    }

    pub fn has_port(&self, protocol: &str) -> bool {
        match self {
            Self::Destination { ports, .. } | Self::ClusterIp { ports, .. } => {
                ports.keys().any(|port| port.protocol == protocol)
            }
            Self::External(_) => false,
            Self::Headless { ports, .. } => ports.keys().any(|port| port.protocol == protocol),
        }
    }
}

fn named(ports: &[ClusterPort]) -> BTreeMap<PortName, u16> {
    ports.iter().filter_map(|port| Some((PortName::new(port.protocol, &port.name)?, port.port?))).collect()
}

fn external(name: &str) -> Option<Name> {
    let mut name = Name::from_utf8(name).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(name)
}

fn headless(object: &Object, spec: &ServiceSpec, slices: &[&EndpointSlice]) -> Service {
    let every = spec.publish_not_ready_addresses || tolerates_unready(&object.metadata.annotations);
    let (mut hosts, mut ports) = (BTreeMap::<Arc<str>, Addresses>::new(), BTreeMap::<_, BTreeSet<_>>::new());
    for slice in slices {
        // A slice that somebody wrote by hand may leave the ports to the Service.
        let named = named(if slice.ports.is_empty() { &spec.ports } else { &slice.ports });
        for endpoint in
            slice.endpoints.iter().filter(|endpoint| every || endpoint.conditions.ready != Some(false))
        {
            for address in published(endpoint, slice.address_type, &spec.ip_families) {
                let host = host(endpoint, address);
                for (port, number) in &named {
                    ports.entry(port.clone()).or_default().insert((host.clone(), *number));
                }
                hosts.entry(host).or_default().insert(address);
            }
        }
    }
    Service::Headless { hosts, ports }
}

fn tolerates_unready(annotations: &Labels) -> bool {
    annotations.get(TOLERATE_UNREADY).is_some_and(|value| value == "true")
}

/// Addresses of an endpoint, of the families that its slice and its Service have.
fn published<'a>(
    endpoint: &'a SliceEndpoint,
    slice: Option<AddressType>,
    families: &'a [AddressType],
) -> impl Iterator<Item = IpAddr> + 'a {
    let family = |address: &IpAddr| if address.is_ipv4() { AddressType::IPv4 } else { AddressType::IPv6 };
    let addresses = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    addresses.filter(move |address| {
        slice.is_none_or(|slice| slice == family(address))
            && (families.is_empty() || families.contains(&family(address)))
    })
}

/// The endpoint's host name, or one that is made of its address: it stays as long as the address does.
fn host(endpoint: &SliceEndpoint, address: IpAddr) -> Arc<str> {
    if let Some(name) = endpoint.hostname.as_deref().and_then(label) {
        return name.into();
    }
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-").into(),
        // Every group: a label does not begin with a hyphen.
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join("-").into(),
    }
}

/// In lower case, if it can be a label of a name.
pub(super) fn label(text: &str) -> Option<String> {
    let is_label = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_label.then(|| text.to_ascii_lowercase())
}
