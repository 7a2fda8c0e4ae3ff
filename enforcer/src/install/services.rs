//! What runs a few times in the cluster: the controller, a gateway, the DNS server.

use serde_json::{Value, json};

use super::{
    NAMESPACE, capabilities,
    fill::{Arg, Fill},
    labels, name,
    node::GATEWAY_LABEL,
    pod::{Mount, PROJECT_ARG, as_nobody, as_root, env, probe, security, unconfine, with_project},
    served::POLICY,
};

fn deployment(role: &str, replicas: &Value, strategy: &Value, pod: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name(role), "namespace": NAMESPACE, "labels": labels(role) },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels(role) },
            "strategy": strategy,
            "template": { "metadata": { "labels": labels(role) }, "spec": pod },
        },
    })
}

fn rolling() -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } })
}

/// Two of them are not to go with one node.
fn spread(role: &str) -> Value {
    json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": { "labelSelector": { "matchLabels": labels(role) }, "topologyKey": "kubernetes.io/hostname" },
    }] } })
}

/// Neither is one that takes the taint off which keeps every pod from the node.
fn tolerations() -> Value {
    json!([
        { "key": "CriticalAddonsOnly", "operator": "Exists" },
        { "key": "enforcer.dev/not-ready", "operator": "Exists" },
        { "key": "node-role.kubernetes.io/control-plane", "operator": "Exists" },
        { "key": "node-role.kubernetes.io/master", "operator": "Exists" },
    ])
}

/// `in_project`: objects of ours are at another API server.
pub fn controller(fill: &Fill<'_>, in_project: bool) -> Value {
    let mut args = vec![
        Arg::Is("controller"),
        Arg::Is("--kubernetes"),
        Arg::Of("--cluster-name=%v", "clusterName"),
        Arg::Of("--service-range=%v", "ranges.service"),
        Arg::Of("--workload-range=%v", "ranges.workload"),
    ];
    args.extend(in_project.then_some(PROJECT_ARG));
    let run = Mount::empty("run", "/run/enforcer");
    let container = json!({
        "name": "controller",
        "image": fill.text("%v:%v", &["image.repository", "image.tag"]),
        "imagePullPolicy": fill.value("image.pullPolicy"),
        "args": fill.args(&args, "controller.extraArgs"),
        "env": env("/run/enforcer/controller/controller.sock"),
        "resources": fill.value("controller.resources"),
        "securityContext": security(&[]),
        "livenessProbe": patient(probe(&[])),
        "readinessProbe": probe(&[]),
        "volumeMounts": [run.mount()],
    });
    let mut pod = json!({
        "affinity": spread("controller"),
        "automountServiceAccountToken": true,
        "containers": [container],
        "imagePullSecrets": fill.value("image.pullSecrets"),
        "nodeSelector": fill.value("controller.nodeSelector"),
        "priorityClassName": "system-cluster-critical",
        "securityContext": as_nobody(),
        "serviceAccountName": name("controller"),
        "tolerations": tolerations(),
        "volumes": [run.volume()],
    });
    if in_project {
        with_project(fill, &mut pod);
    }
    deployment("controller", &fill.value("controller.replicas"), &rolling(), &pod)
}

/// Longer than the longest turn of a busy role, shorter than anybody's patience.
fn patient(mut probe: Value) -> Value {
    probe["initialDelaySeconds"] = json!(30);
    probe["failureThreshold"] = json!(6);
    probe
}

pub fn disruption_budget(fill: &Fill<'_>, role: &str) -> Value {
    json!({
        "apiVersion": fill.served(POLICY, "policy/v1", "policy/v1beta1"),
        "kind": "PodDisruptionBudget",
        "metadata": { "name": name(role), "namespace": NAMESPACE, "labels": labels(role) },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": labels(role) } },
    })
}

/// On a node of its own, which carries the label that agents keep away from.
pub fn gateway(fill: &Fill<'_>) -> Value {
    let args = [
        Arg::Is("gateway"),
        Arg::Is("--kubernetes"),
        Arg::Of("--name=%v", "gateway.name"),
        Arg::Is("--key=/etc/enforcer/key"),
        Arg::Is("--run-dir=/run/enforcer/gateway"),
        Arg::Of("--listen-port=%v", "gateway.port"),
        Arg::Is("--host-mounts=/proc/1/ns/mnt"),
    ];
    let bpf = Mount::host("bpf", "/sys/fs/bpf", "Directory").followed();
    let tun = Mount::host("tun", "/dev/net", "DirectoryOrCreate");
    let run = Mount::host("run", "/run/enforcer", "DirectoryOrCreate");
    let wireguard = Mount::host("wireguard", "/var/run/wireguard", "DirectoryOrCreate");
    let container = |name: &str, args: Value, resources: Value, rights: &[capabilities::Capability]| {
        json!({
            "name": name,
            "image": fill.text("%v:%v", &["image.repository", "image.tag"]),
            "imagePullPolicy": fill.value("image.pullPolicy"),
            "args": args,
            "env": env("/run/enforcer/gateway/gateway.sock"),
            "resources": resources,
            "securityContext": security(rights),
            "volumeMounts": [bpf.mount(), run.mount(), tun.mount(), wireguard.mount()],
        })
    };
    let rights = capabilities::GATEWAY;
    let mut gateway =
        container("gateway", fill.args(&args, "gateway.extraArgs"), fill.value("gateway.resources"), rights);
    gateway["readinessProbe"] = probe(&[]);
    gateway["ports"] = json!([{ "name": "tunnel", "containerPort": fill.value("gateway.port"), "hostPort": fill.value("gateway.port"), "protocol": "UDP" }]);
    if let Some(mounts) = gateway["volumeMounts"].as_array_mut() {
        mounts.push(json!({ "name": "key", "mountPath": "/etc/enforcer", "readOnly": true }));
    }
    let args = json!(["tunnel", "--run-dir=/run/enforcer/gateway"]);
    let tunnel = container("tunnel", args, fill.value("tunnel.resources"), capabilities::TUNNEL);
    // Nobody but the gateway may read it: 0400.
    let key = json!({ "name": "key", "secret": { "secretName": fill.value("gateway.keySecret"), "defaultMode": 256 } });
    let pod = json!({
        "automountServiceAccountToken": true,
        "containers": [gateway, tunnel],
        "hostNetwork": true,
        "hostPID": true,
        "imagePullSecrets": fill.value("image.pullSecrets"),
        "nodeSelector": { GATEWAY_LABEL: "" },
        "priorityClassName": "system-cluster-critical",
        "securityContext": as_root(),
        "serviceAccountName": name("gateway"),
        "tolerations": [{ "operator": "Exists" }],
        "volumes": [bpf.volume(), key, run.volume(), tun.volume(), wireguard.volume()],
    });
    // Two of one name would take each other's packets.
    let mut gateway = deployment("gateway", &json!(1), &json!({ "type": "Recreate" }), &pod);
    // Its default profile denies the host's namespaces and what stands in /proc/sys/net.
    unconfine(fill, &mut gateway["spec"]["template"], "gateway");
    gateway
}

pub fn dns(fill: &Fill<'_>) -> Vec<Value> {
    let args = [
        Arg::Is("dns"),
        Arg::Is("--kubernetes"),
        Arg::Is("--listen=0.0.0.0:5353"),
        Arg::Of("--cluster-domain=%v", "dns.clusterDomain"),
    ];
    let container = json!({
        "name": "dns",
        "image": fill.text("%v:%v", &["image.repository", "image.tag"]),
        "imagePullPolicy": fill.value("image.pullPolicy"),
        "args": fill.args(&args, "dns.extraArgs"),
        "ports": [
            { "name": "dns", "containerPort": 5353, "protocol": "UDP" },
            { "name": "dns-tcp", "containerPort": 5353, "protocol": "TCP" },
        ],
        "readinessProbe": { "tcpSocket": { "port": "dns-tcp" }, "periodSeconds": 5 },
        "resources": fill.value("dns.resources"),
        "securityContext": security(&[]),
    });
    let pod = json!({
        "affinity": spread("dns"),
        "automountServiceAccountToken": true,
        "containers": [container],
        // It would ask itself.
        "dnsPolicy": "Default",
        "imagePullSecrets": fill.value("image.pullSecrets"),
        "priorityClassName": "system-cluster-critical",
        "securityContext": as_nobody(),
        "serviceAccountName": name("dns"),
        "tolerations": tolerations(),
    });
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name("dns"), "namespace": NAMESPACE, "labels": labels("dns") },
        "spec": {
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns-tcp" },
            ],
            "selector": labels("dns"),
        },
    });
    // An empty one would take away the one that the server has chosen.
    fill.field(&mut service["spec"], "clusterIP", "dns.clusterIP");
    vec![
        deployment("dns", &fill.value("dns.replicas"), &rolling(), &pod),
        service,
        disruption_budget(fill, "dns"),
    ]
}
