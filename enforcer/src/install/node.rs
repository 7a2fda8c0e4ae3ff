//! What runs on every node: the agent, the tunnel in user space, the boot guard.

use serde_json::{Value, json};

use super::{
    NAMESPACE, capabilities,
    fill::{Arg, Fill},
    labels, name,
    pod::{Mount, PROJECT_ARG, as_root, env, probe, security, unconfine, with_project},
};

/// Nodes with this label are gateways' own: an agent and a gateway never share one.
pub const GATEWAY_LABEL: &str = "enforcer.dev/gateway";

/// Where the agent's control socket is, for whoever asks from inside of the pod.
const SOCKET: &str = "/run/enforcer/$(NODE_NAME)/agent.sock";

/// A DaemonSet on every node but gateways'.
pub fn daemon_set(role: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": name(role), "namespace": NAMESPACE, "labels": labels(role) },
        "spec": {
            "selector": { "matchLabels": labels(role) },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
            "template": pod,
        },
    })
}

fn on_every_node(fill: &Fill<'_>, role: &str, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": { "labels": labels(role) },
        "spec": {
            "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": GATEWAY_LABEL, "operator": "DoesNotExist" }] },
            ] } } },
            "hostNetwork": true,
            "imagePullSecrets": fill.value("image.pullSecrets"),
            "nodeSelector": fill.value("agent.nodeSelector"),
            "priorityClassName": "system-node-critical",
            "serviceAccountName": name(role),
            // Nothing is to run unguarded, whatever the node is tainted with.
            "tolerations": [{ "operator": "Exists" }],
        },
    });
    if let (Some(all), Value::Object(more)) = (pod["spec"].as_object_mut(), spec) {
        all.extend(more);
    }
    pod
}

/// `in_project`: objects of ours are at another API server.
pub fn agent(fill: &Fill<'_>, in_project: bool) -> Value {
    let mut args = vec![
        Arg::Is("agent"),
        Arg::Is("--kubernetes"),
        Arg::Is("--node=$(NODE_NAME)"),
        Arg::Of("--cluster-name=%v", "clusterName"),
        Arg::Is("--key=/var/lib/enforcer/$(NODE_NAME).key"),
        Arg::Is("--guarded=/var/lib/enforcer/$(NODE_NAME).guarded.json"),
        Arg::Of("--boot-guard=%v", "bootGuard"),
        Arg::Of("--host-mounts=%v", "agent.hostMounts"),
    ];
    args.extend(in_project.then_some(PROJECT_ARG));
    let container = json!({
        "name": "agent",
        "image": fill.text("%v:%v", &["image.repository", "image.tag"]),
        "imagePullPolicy": fill.value("image.pullPolicy"),
        "args": fill.args(&args, "agent.extraArgs"),
        "env": env(SOCKET),
        "resources": fill.value("agent.resources"),
        "securityContext": security(capabilities::AGENT),
        // No liveness probe: the kernel works without the agent, which ends by itself when it cannot go on.
        "readinessProbe": probe(&["--require", "Guarded"]),
        "volumeMounts": agent_mounts().iter().map(Mount::mount).collect::<Vec<_>>(),
    });
    let mut spec = json!({
        "automountServiceAccountToken": true,
        "containers": [container],
        // /proc is every process's of the node: pods' namespaces are found there.
        "hostPID": true,
        "securityContext": as_root(),
        "terminationGracePeriodSeconds": 5,
        "volumes": agent_mounts().iter().map(Mount::volume).collect::<Vec<_>>(),
    });
    if in_project {
        with_project(fill, &mut spec);
    }
    let mut pod = on_every_node(fill, "agent", spec);
    // Its default profile denies every mount.
    unconfine(fill, &mut pod, "agent");
    daemon_set("agent", &pod)
}

/// What comes and goes on the host is seen inside. The boot guard finds the agent's state where the agent has it: under
/// the same path.
pub fn agent_mounts() -> [Mount; 7] {
    [
        Mount::host("bpf", "/sys/fs/bpf", "Directory").followed(),
        Mount::host("cgroup", "/sys/fs/cgroup", "Directory").followed().read_only(),
        Mount::host("netns", "/run/netns", "DirectoryOrCreate").followed(),
        Mount::host("run", "/run/enforcer", "DirectoryOrCreate"),
        Mount::host("state", "/var/lib/enforcer", "DirectoryOrCreate"),
        Mount::host("tun", "/dev/net", "DirectoryOrCreate"),
        Mount::host("wireguard", "/var/run/wireguard", "DirectoryOrCreate"),
    ]
}

/// Apart from the agent, so that neither takes the other down.
pub fn tunnel(fill: &Fill<'_>) -> Value {
    let mounts = [
        Mount::host("netns", "/run/netns", "DirectoryOrCreate").followed(),
        Mount::host("run", "/run/enforcer", "DirectoryOrCreate"),
        Mount::host("tun", "/dev/net", "DirectoryOrCreate"),
        Mount::host("wireguard", "/var/run/wireguard", "DirectoryOrCreate"),
    ];
    let container = json!({
        "name": "tunnel",
        "image": fill.text("%v:%v", &["image.repository", "image.tag"]),
        "imagePullPolicy": fill.value("image.pullPolicy"),
        "args": ["tunnel", "--run-dir=/run/enforcer/$(NODE_NAME)"],
        "env": env(SOCKET),
        "resources": fill.value("tunnel.resources"),
        "securityContext": security(capabilities::TUNNEL),
        "volumeMounts": mounts.iter().map(Mount::mount).collect::<Vec<_>>(),
    });
    let spec = json!({
        "automountServiceAccountToken": false,
        "containers": [container],
        "securityContext": as_root(),
        "terminationGracePeriodSeconds": 5,
        "volumes": mounts.iter().map(Mount::volume).collect::<Vec<_>>(),
    });
    daemon_set("tunnel", &on_every_node(fill, "tunnel", spec))
}
