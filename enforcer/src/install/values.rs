//! What a person may set: `--values FILE`, and `--set KEY=VALUE` over it. The chart's `values.yaml` is its default.

use std::{fs, path::Path};

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Everything that can be set. Strings that are empty mean that nothing is said.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// What ServiceConnections call this cluster.
    pub cluster_name: String,
    /// On nodes with systemd: what is guarded leads nowhere between a boot and the agent, before kubelet starts any pod.
    pub boot_guard: bool,
    /// Secret of enforcer-system whose item `kubeconfig` leads to the API server that has connections, destinations and
    /// gateways; empty: this cluster's own.
    pub connections_kubeconfig_secret: String,
    pub image: Image,
    pub ranges: Ranges,
    pub agent: Agent,
    pub tunnel: Tunnel,
    pub controller: Controller,
    pub gateway: Gateway,
    pub dns: Dns,
}

/// One image for all roles.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    /// As the nodes' container runtime takes it.
    pub repository: String,
    /// The version of this enforcer.
    pub tag: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// Secrets of enforcer-system, `[{name: …}]`.
    pub pull_secrets: Vec<Value>,
}

/// IPv4; the IPv6 range is made up at random. Fixed once the controller has run.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ranges {
    /// Addresses of services.
    #[schemars(with = "String")]
    pub service: Ipv4Net,
    /// Addresses of pods, nodes and gateways in the tunnel.
    #[schemars(with = "String")]
    pub workload: Ipv4Net,
}

/// On every node that is no gateway.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// Flags of the command beside those that are there.
    pub extra_args: Vec<String>,
    /// Labels of the nodes that it runs on.
    pub node_selector: Map<String, Value>,
    /// Requests and limits.
    pub resources: Map<String, Value>,
    /// What must come from the host's own mounts is done there; another path than pid 1's is for nodes within nodes.
    pub host_mounts: String,
}

/// WireGuard in user space, for nodes whose kernel has none.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tunnel {
    /// It is idle where the kernel has WireGuard.
    pub enabled: bool,
    /// Requests and limits.
    pub resources: Map<String, Value>,
}

/// Gives out addresses and says of every object whether it works.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Controller {
    /// One leads, the others wait.
    pub replicas: u32,
    /// Flags of the command beside those that are there.
    pub extra_args: Vec<String>,
    /// Labels of the nodes that it runs on.
    pub node_selector: Map<String, Value>,
    /// Requests and limits.
    pub resources: Map<String, Value>,
}

/// A gateway in this cluster. Most are elsewhere, beside the services.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// Its node has the label enforcer.dev/gateway, which agents keep away from.
    pub enabled: bool,
    /// Of its TunnelGateway.
    pub name: String,
    /// Secret of enforcer-system whose item `key` is the private key.
    pub key_secret: String,
    /// UDP port on its node.
    pub port: u16,
    /// Flags of the command beside those that are there.
    pub extra_args: Vec<String>,
    /// Requests and limits.
    pub resources: Map<String, Value>,
}

/// A DNS server for the cluster, after the Kubernetes DNS specification.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// Without it, the cluster's own DNS answers.
    pub enabled: bool,
    /// How many there are.
    pub replicas: u32,
    /// Address of its Service; empty: any.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Under which the names of services are.
    pub cluster_domain: String,
    /// Flags of the command beside those that are there.
    pub extra_args: Vec<String>,
    /// Requests and limits.
    pub resources: Map<String, Value>,
}

fn requests(cpu: &str, memory: &str) -> Map<String, Value> {
    let requests = json!({ "cpu": cpu, "memory": memory });
    Map::from_iter([("requests".to_owned(), requests)])
}

impl Default for Values {
    fn default() -> Self {
        Self {
            cluster_name: "my-cluster".to_owned(),
            boot_guard: false,
            connections_kubeconfig_secret: String::new(),
            image: Image::default(),
            ranges: Ranges::default(),
            agent: Agent::default(),
            tunnel: Tunnel::default(),
            controller: Controller::default(),
            gateway: Gateway::default(),
            dns: Dns::default(),
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Self {
            repository: "enforcer".to_owned(),
            tag: env!("CARGO_PKG_VERSION").to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Default for Ranges {
    fn default() -> Self {
        let range = |second| Ipv4Net::new_assert([198, second, 0, 0].into(), 16);
        Self { service: range(18), workload: range(19) }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            extra_args: Vec::new(),
            node_selector: Map::new(),
            // No limit: the kernel charges the maps to whoever made them, and they grow with what is granted.
            resources: requests("50m", "128Mi"),
            host_mounts: "/proc/1/ns/mnt".to_owned(),
        }
    }
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { enabled: true, resources: requests("10m", "32Mi") }
    }
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            replicas: 2,
            extra_args: Vec::new(),
            node_selector: Map::new(),
            resources: requests("20m", "64Mi"),
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            enabled: false,
            name: "eu-1".to_owned(),
            key_secret: "enforcer-gateway".to_owned(),
            port: 51_820,
            extra_args: Vec::new(),
            resources: requests("100m", "128Mi"),
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            enabled: false,
            replicas: 2,
            cluster_ip: String::new(),
            cluster_domain: "cluster.local".to_owned(),
            extra_args: Vec::new(),
            resources: requests("20m", "32Mi"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ValuesError {
    #[error("--values {path}: cannot be read")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("--values {path}: is no YAML")]
    Yaml {
        path: String,
        #[source]
        source: serde_norway::Error,
    },
    #[error("--set {0}: expected KEY=VALUE")]
    NoValue(String),
    #[error("there is no value {key}{hint}")]
    Unknown { key: String, hint: String },
    #[error("value {key}: {message}")]
    Invalid { key: String, message: String },
    #[error(
        "the {ours} range {range} overlaps {what} {other}: set ranges.{ours} to one that nothing else uses"
    )]
    Overlap { ours: &'static str, range: IpNet, what: String, other: IpNet },
}

/// The defaults, the files over them, and what was set over those; each later one wins.
pub fn read(files: &[impl AsRef<Path>], set: &[String]) -> Result<Values, ValuesError> {
    let defaults = json!(Values::default());
    let mut values = defaults.clone();
    for file in files {
        let path = file.as_ref().display().to_string();
        let text =
            fs::read_to_string(file).map_err(|source| ValuesError::Read { path: path.clone(), source })?;
        let over: Value =
            serde_norway::from_str(&text).map_err(|source| ValuesError::Yaml { path, source })?;
        merge(&mut values, &over, &defaults, "")?;
    }
    for assignment in set {
        let (key, text) =
            assignment.split_once('=').ok_or_else(|| ValuesError::NoValue(assignment.clone()))?;
        let is_text = lookup(&defaults, key).is_some_and(Value::is_string);
        // `image.tag=1.20` is no number.
        let value = if is_text { json!(text) } else { serde_norway::from_str(text).unwrap_or(json!(text)) };
        let over = key.rsplit('.').fold(value, |inner, name| json!({ name: inner }));
        merge(&mut values, &over, &defaults, "")?;
    }
    let values: Values = serde_path_to_error::deserialize(values).map_err(|error| ValuesError::Invalid {
        key: error.path().to_string(),
        message: error.inner().to_string(),
    })?;
    values.check()?;
    Ok(values)
}

/// The value at `a.b.c`.
pub fn lookup<'a>(values: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(values, |value, name| value.get(name))
}

/// Lays `over` on `values`. What `defaults` do not have is no value, but for the inside of maps that are a person's.
fn merge(values: &mut Value, over: &Value, defaults: &Value, path: &str) -> Result<(), ValuesError> {
    let Value::Object(fields) = over else {
        if path.is_empty() {
            let message = "expected a map of values".to_owned();
            return if over.is_null() {
                Ok(())
            } else {
                Err(ValuesError::Invalid { key: "(all)".into(), message })
            };
        }
        *values = over.clone();
        return Ok(());
    };
    let free = path.ends_with("nodeSelector") || path.contains("resources");
    for (name, over) in fields {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let known = defaults.get(name);
        if known.is_none() && !free {
            return Err(ValuesError::Unknown { hint: nearest(&key), key });
        }
        let Some(values) = values.as_object_mut() else {
            return Err(ValuesError::Invalid { key, message: "is inside of a value that is no map".into() });
        };
        let slot = values.entry(name.clone()).or_insert_with(|| json!({}));
        merge(slot, over, known.unwrap_or(&Value::Null), &key)?;
    }
    Ok(())
}

fn nearest(key: &str) -> String {
    let all = keys();
    let scored = all.iter().map(|known| (strsim::jaro_winkler(known, key), known));
    match scored.max_by(|left, right| left.0.total_cmp(&right.0)) {
        Some((score, known)) if score > 0.8 => format!(": did you mean {known}?"),
        _ => format!(": expected one of {}", all.join(", ")),
    }
}

/// Every key that `--set` takes.
pub fn keys() -> Vec<String> {
    fn walk(value: &Value, path: &str, keys: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match value {
                Value::Object(_) if name != "resources" && name != "nodeSelector" => walk(value, &key, keys),
                _ => keys.push(key),
            }
        }
    }
    let mut keys = Vec::new();
    walk(&json!(Values::default()), "", &mut keys);
    keys
}

/// A range of the cluster or the network: what it is called, and where it is.
pub type Taken = (String, IpNet);

impl Values {
    fn check(&self) -> Result<(), ValuesError> {
        let invalid =
            |key: &str, message: &str| Err(ValuesError::Invalid { key: key.into(), message: message.into() });
        if self.cluster_name.is_empty() {
            return invalid("clusterName", "expected a name, ServiceConnections use it");
        }
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !self.connections_kubeconfig_secret.is_empty() && !self.cluster_name.bytes().all(is_name) {
            return invalid(
                "clusterName",
                "expected lower-case letters, digits and `-`: names of TunnelNodes begin with it",
            );
        }
        if !["Always", "IfNotPresent", "Never"].contains(&&*self.image.pull_policy) {
            return invalid("image.pullPolicy", "expected Always, IfNotPresent or Never");
        }
        if self.controller.replicas == 0 {
            return invalid("controller.replicas", "expected at least 1: nothing gets an address without it");
        }
        if self.gateway.enabled && self.gateway.name.is_empty() {
            return invalid("gateway.name", "expected the name of a TunnelGateway");
        }
        for (key, range) in
            [("ranges.service", self.ranges.service), ("ranges.workload", self.ranges.workload)]
        {
            if range != range.trunc() {
                return invalid(
                    key,
                    &format!("{range} has bits beyond its length, expected {}", range.trunc()),
                );
            }
        }
        let workload = ("the workload range".to_owned(), self.ranges.workload.into());
        check_range("service", self.ranges.service, &[workload])
    }

    /// Refuses ranges that something else uses: packets to it would be taken for guarded ones.
    pub fn check_ranges(&self, taken: &[Taken]) -> Result<(), ValuesError> {
        check_range("service", self.ranges.service, taken)?;
        check_range("workload", self.ranges.workload, taken)
    }
}

fn check_range(ours: &'static str, range: Ipv4Net, taken: &[Taken]) -> Result<(), ValuesError> {
    let range = IpNet::from(range);
    let overlaps = |other: &IpNet| range.contains(&other.network()) || other.contains(&range.network());
    match taken.iter().find(|(_, other)| overlaps(other)) {
        Some((what, other)) => Err(ValuesError::Overlap { ours, range, what: what.clone(), other: *other }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
