//! What the daemons of the node read.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cni, node::Node};
use crate::control_plane::Authority;

/// Pods of this cluster have addresses of both.
pub const PODS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// A Service has an address of the first unless it asks for one of the second.
pub const SERVICES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// With this gate every part of a cluster of 1.20 knows of both families.
pub const GATES: &str = "--feature-gates=IPv6DualStack=true";
/// Whoever serves DNS makes a Service with this address.
pub const DNS: &str = "10.96.0.10";
/// What holds a pod's namespaces; any image with such a program would do.
pub const PAUSE: &str = "enforcer.dev/busybox:test";

pub const CONTAINERD: &str = "containerd.toml";
pub const KUBELET: &str = "kubelet.json";
pub const NETWORKS: &str = "cni";
/// Certificate and key of a kubelet.
pub const KUBELET_SERVER: &str = "kubelet-server";

/// Writes those of a node into the folder.
pub fn write(dir: &Path, authority: &Authority, cni: Cni, node: Node) -> Result<()> {
    let networks = dir.join(node.file(NETWORKS));
    fs::create_dir_all(&networks).with_context(|| format!("cannot make {}", networks.display()))?;
    let files = [
        (dir.join(node.file(CONTAINERD)), containerd(&networks)),
        (dir.join(node.file(KUBELET)), kubelet(dir, authority, node).to_string()),
        (dir.join("resolv.conf"), "search .\n".into()),
        (networks.join("10-pods.conflist"), network(cni, node).to_string()),
    ];
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn containerd(networks: &Path) -> String {
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
"#,
        networks.display()
    )
}

fn kubelet(dir: &Path, authority: &Authority, node: Node) -> Value {
    let key = node.file(KUBELET_SERVER);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority.path("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "failSwapOn": false,
        "featureGates": {"IPv6DualStack": true},
        "imageGCHighThresholdPercent": 100,
        "resolvConf": dir.join("resolv.conf"),
        "tlsCertFile": authority.path(&format!("{key}.crt")),
        "tlsPrivateKeyFile": authority.path(&format!("{key}.key")),
    })
}

/// Pods reach everything that the node reaches, with their own addresses.
fn network(cni: Cni, node: Node) -> Value {
    let addresses = json!({
        "type": "host-local",
        "ranges": node.pods.map(|subnet| [json!({"subnet": subnet})]),
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    let pods = match cni {
        Cni::Ptp => json!({"type": "ptp", "ipam": addresses}),
        Cni::Bridge => json!({
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": addresses,
        }),
    };
    json!({
        "cniVersion": "0.3.1",
        "name": "pods",
        "plugins": [pods, {"type": "portmap", "capabilities": {"portMappings": true}}],
    })
}
