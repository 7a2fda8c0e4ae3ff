//! The lab's YAML: what stands in the watched folder, written as editors write.

use std::{fmt::Write, fs};

use anyhow::{Context, Result};

use super::{
    Id, Lab,
    network::{GATEWAY4, Pod, SERVER4, SERVER6, TUNNEL_PORT},
};

/// Where the lab's destinations and connections live.
pub const PROJECT: &str = "shop";
/// The agents' `--cluster-name`.
pub const CLUSTER: &str = "lab";
/// Label and namespace that the lab's connections select.
pub const GRANTED: (&str, &str) = ("app", "cart");

/// The three services of the lab.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Service {
    Postgres,
    MySql,
    KeyValueStore,
}

impl Service {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::MySql, Self::KeyValueStore];

    pub const fn kind(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::MySql => "MySQL",
            Self::KeyValueStore => "KeyValueStore",
        }
    }

    /// Name of the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "orders",
            Self::MySql => "stock",
            Self::KeyValueStore => "cache",
        }
    }

    pub const fn port(self) -> u16 {
        match self {
            Self::Postgres => 5432,
            Self::MySql => 3306,
            Self::KeyValueStore => 6379,
        }
    }

    /// The client that the lab uses.
    pub const fn client(self) -> &'static str {
        match self {
            Self::Postgres => "psql",
            Self::MySql => "mariadb",
            Self::KeyValueStore => "redis-cli",
        }
    }

    /// The name that clients use.
    pub fn fqdn(self) -> String {
        format!("{}-{}.{PROJECT}.svc.cluster.local", self.kind().to_lowercase(), self.name())
    }
}

impl Lab {
    /// Replaces a file of the watched folder by rename, as most editors save.
    pub fn save(&self, file: &str, yaml: &str) -> Result<()> {
        save(&self.id, file, yaml)
    }

    pub fn delete(&self, file: &str) -> Result<()> {
        let path = self.id.manifests().join(file);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
    }

    /// A connection from the granted pods of the project's own namespace to a service.
    pub fn grant(&self, service: Service) -> Result<()> {
        self.grant_with(service, "")
    }

    /// The same with more lines in its `spec`.
    pub fn grant_with(&self, service: Service, more: &str) -> Result<()> {
        let (key, value) = GRANTED;
        let selector = format!("      matchLabels:\n        {key}: {value}\n");
        self.save(&connection_file(service), &connection(service, &selector, more))
    }

    /// The same with another `podSelector`.
    pub fn grant_selector(&self, service: Service, selector: &str) -> Result<()> {
        self.save(&connection_file(service), &connection(service, selector, ""))
    }

    pub fn revoke(&self, service: Service) -> Result<()> {
        self.delete(&connection_file(service))
    }

    /// Namespaces, pods, services; no connection.
    pub fn save_objects(&self) -> Result<()> {
        self.save("namespaces.yaml", &namespaces())?;
        for pod in &self.network.pods {
            self.save_pod(pod)?;
        }
        for service in Service::ALL {
            self.save(&format!("{}.yaml", service.name()), &instance(&self.id, service))?;
        }
        Ok(())
    }

    pub fn save_pod(&self, pod: &Pod) -> Result<()> {
        self.save(&format!("pod-{}.yaml", pod.name), &pod_yaml(&self.id, pod))
    }
}

fn save(id: &Id, file: &str, yaml: &str) -> Result<()> {
    let path = id.manifests().join(file);
    let new = id.manifests().join(format!(".{file}.new"));
    fs::write(&new, yaml).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("cannot rename to {}", path.display()))
}

fn connection_file(service: Service) -> String {
    format!("connection-{}.yaml", service.name())
}

fn namespaces() -> String {
    [PROJECT, "other"]
        .map(|name| {
            format!(
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             kubernetes.io/metadata.name: {name}\n"
            )
        })
        .join("---\n")
}

pub fn pod_yaml(id: &Id, pod: &Pod) -> String {
    let mut yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: {}\n  uid: uid-{}\n",
        pod.name, pod.namespace, pod.name
    );
    if !pod.labels.is_empty() {
        yaml += "  labels:\n";
    }
    for (key, value) in &pod.labels {
        let _ = writeln!(yaml, "    {key}: {value}");
    }
    yaml += "  annotations:\n";
    if pod.host_network {
        let _ = writeln!(yaml, "    enforcer.dev/cgroup: {}", pod.cgroup.display());
    } else {
        let _ = writeln!(yaml, "    enforcer.dev/netns: {}", pod.netns);
    }
    let _ = writeln!(yaml, "spec:\n  nodeName: {}\n  hostNetwork: {}", id.node(), pod.host_network);
    let [v4, v6] = pod.addresses();
    yaml + &format!("status:\n  phase: Running\n  podIPs:\n  - ip: {v4}\n  - ip: \"{v6}\"\n")
}

fn instance(id: &Id, service: Service) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: {}\nmetadata:\n  name: {}\n  namespace: {PROJECT}\nspec:\n  \
         gateways: [{}]\n  endpoints:\n  - address: {SERVER4}\n  - address: \"{SERVER6}\"\n",
        service.kind(),
        service.name(),
        id.gateway(),
    )
}

fn connection(service: Service, selector: &str, more: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata:\n  name: cart-{}\n  \
         namespace: {PROJECT}\nspec:\n  source:\n    kind: KubernetesCluster\n    name: {CLUSTER}\n    \
         podSelector:\n{selector}    namespaceSelector:\n      matchLabels:\n        \
         kubernetes.io/metadata.name: {PROJECT}\n  destination:\n    kind: {}\n    name: {}\n{more}",
        service.name(),
        service.kind(),
        service.name(),
    )
}

pub fn gateway(id: &Id, public_key: &str, more: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TunnelGateway\nmetadata:\n  name: {}\nspec:\n  \
         publicKey: {public_key}\n  endpoints: [\"{GATEWAY4}:{TUNNEL_PORT}\"]\n  allowedNamespaces: [{PROJECT}]\n  \
         allowedBackends:\n  - cidr: 203.0.113.0/24\n    ports: [{{port: 1, endPort: 65535, protocol: TCP}}, \
         {{port: 1, endPort: 65535, protocol: UDP}}]\n  - cidr: 2001:db8:2::/64\n    ports: [{{port: 1, \
         endPort: 65535, protocol: TCP}}, {{port: 1, endPort: 65535, protocol: UDP}}]\n{more}",
        id.gateway(),
    )
}

pub fn node(id: &Id, public_key: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TunnelNode\nmetadata:\n  name: {node}\nspec:\n  \
         publicKey: {public_key}\n  cluster: {CLUSTER}\n  node: {node}\n",
        node = id.node(),
    )
}
