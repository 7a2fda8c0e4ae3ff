//! What the pods of all roles are made of.

use serde_json::{Value, json};

use super::{
    capabilities::Capability,
    fill::{Arg, Fill, When},
};

/// Value that names a Secret with a kubeconfig, where objects of ours are at another API server.
pub const PROJECT: &str = "connectionsKubeconfigSecret";
pub const PROJECT_ARG: Arg = Arg::Is("--connections-kubeconfig=/etc/enforcer/project/kubeconfig");

/// Gives the first container of a pod that file.
pub fn with_project(fill: &Fill<'_>, pod: &mut Value) {
    // For its group as well, that of a container which is not root.
    let volume =
        json!({ "name": "project", "secret": { "secretName": fill.value(PROJECT), "defaultMode": 288 } });
    let mount = json!({ "name": "project", "mountPath": "/etc/enforcer/project", "readOnly": true });
    if let Some(volumes) = pod["volumes"].as_array_mut() {
        volumes.push(volume);
    }
    if let Some(mounts) = pod["containers"][0]["volumeMounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// Since when the profile is a field; servers say that the annotation is old, and from 1.36 on they do not heed it.
const PROFILE_FIELD: u16 = 30;

/// Takes the pod's first container, which is called `name`, out of AppArmor's default profile.
pub fn unconfine(fill: &Fill<'_>, pod: &mut Value, name: &str) {
    let security = &mut pod["spec"]["containers"][0]["securityContext"];
    fill.at(security, "appArmorProfile", When::Since(PROFILE_FIELD), ["type", "Unconfined"]);
    let profile = format!("container.apparmor.security.beta.kubernetes.io/{name}");
    fill.at(&mut pod["metadata"], "annotations", When::Before(PROFILE_FIELD), [&profile, "unconfined"]);
}

/// A folder of the host, or an empty one, at the same path in the container.
pub struct Mount {
    name: &'static str,
    path: &'static str,
    /// `hostPath`'s type; `None`: an empty folder.
    host: Option<&'static str>,
    followed: bool,
    read_only: bool,
}

impl Mount {
    pub const fn host(name: &'static str, path: &'static str, kind: &'static str) -> Self {
        Self { name, path, host: Some(kind), followed: false, read_only: false }
    }

    pub const fn empty(name: &'static str, path: &'static str) -> Self {
        Self { name, path, host: None, followed: false, read_only: false }
    }

    /// What the host mounts below it later is seen as well.
    pub const fn followed(self) -> Self {
        Self { followed: true, ..self }
    }

    pub const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    pub fn mount(&self) -> Value {
        let mut mount = json!({ "name": self.name, "mountPath": self.path });
        if self.followed {
            mount["mountPropagation"] = json!("HostToContainer");
        }
        if self.read_only {
            mount["readOnly"] = json!(true);
        }
        mount
    }

    pub fn volume(&self) -> Value {
        match self.host {
            Some(kind) => json!({ "name": self.name, "hostPath": { "path": self.path, "type": kind } }),
            None => json!({ "name": self.name, "emptyDir": {} }),
        }
    }
}

/// `socket` is the role's control socket: what runs in the container asks there.
pub fn env(socket: &str) -> Value {
    json!([
        { "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
        { "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "ENFORCER_SOCKET", "value": socket },
    ])
}

/// Asks the role itself; the image has no shell.
pub fn probe(more: &[&str]) -> Value {
    let command: Vec<&str> = ["/enforcer", "status", "--quiet"].iter().chain(more).copied().collect();
    json!({ "exec": { "command": command }, "initialDelaySeconds": 2, "periodSeconds": 10, "timeoutSeconds": 5 })
}

/// For a container with some capabilities, or none.
pub fn security(capabilities: &[Capability]) -> Value {
    let mut rights = json!({ "drop": ["ALL"] });
    if !capabilities.is_empty() {
        rights["add"] = capabilities.iter().map(|(name, _)| *name).collect();
    }
    json!({ "allowPrivilegeEscalation": false, "capabilities": rights, "readOnlyRootFilesystem": true })
}

/// The pod of a role that works on the node itself. `spc_t`: what SELinux lets use the host's files.
pub fn as_root() -> Value {
    json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "seLinuxOptions": { "type": "spc_t" },
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// The pod of a role that only talks to the API server.
pub fn as_nobody() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": 65_532,
        "runAsGroup": 65_532,
        "fsGroup": 65_532,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}
