//! Pods of the cluster, as tests start them.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Cluster, PAUSE};
use crate::lab::{
    Outcome,
    manifests::Service,
    query::{Answer, client, judge},
    servers::postgres_dir,
    session::{Session, talk},
    wait,
};

/// Made by `cargo xtask`: links to where Debian's programs are, and nothing else.
const MACHINE: &str = "enforcer.dev/machine:test";

/// A pod, gone when this is.
pub struct Pod<'a> {
    cluster: &'a Cluster,
    namespace: String,
    name: String,
}

impl<'a> Pod<'a> {
    /// Makes it from its `metadata` and `spec`; it ends at once when it is told to.
    pub fn start(cluster: &'a Cluster, metadata: &Value, mut spec: Value) -> Result<Self> {
        spec["terminationGracePeriodSeconds"] = json!(0);
        let text = |field: &str| metadata[field].as_str().map(str::to_owned);
        let pod = Self {
            cluster,
            namespace: text("namespace").unwrap_or_else(|| "default".into()),
            name: text("name").context("the pod has no name")?,
        };
        let document = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        cluster.kubectl_with(&["create", "--filename", "-"], &document.to_string())?;
        Ok(pod)
    }

    /// What the API server says about it.
    pub fn get(&self) -> Result<Value> {
        let text = self.kubectl(&["get", "pod", &self.name, "--output", "json"])?;
        serde_json::from_str(&text).context("kubectl prints no JSON")
    }

    /// Waits for the phase and returns the status.
    pub fn wait(&self, phase: &str) -> Result<Value> {
        let mut last = String::new();
        let reached = wait::until(&format!("{} is {phase}", self.name), || match self.get() {
            Ok(pod) if pod["status"]["phase"] == phase => Some(pod["status"].clone()),
            Ok(pod) => {
                last = pod["status"].to_string();
                None
            }
            Err(err) => {
                last = format!("{err:#}");
                None
            }
        });
        reached.with_context(|| last.clone())
    }

    /// What a command in its first container prints; an error holds what it says.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        let args: Vec<&str> =
            ["exec", self.name.as_str(), "--"].into_iter().chain(command.iter().copied()).collect();
        self.kubectl(&args)
    }

    /// A command in its first container, and how it ended.
    pub fn run(&self, command: &[&str]) -> Result<Outcome> {
        let mut kubectl = Command::new(self.cluster.kubectl_path());
        kubectl.args(["--namespace", &self.namespace, "exec", &self.name, "--"]).args(command);
        Outcome::of(&mut kubectl)
    }

    /// What PostgreSQL at this host answers it.
    pub fn query(&self, host: &str) -> Result<Answer> {
        let psql = postgres_dir()?.join("psql").display().to_string();
        let (words, expected) = client(Service::Postgres, host);
        // The first word is a script that needs settings of the machine's.
        let words: Vec<&str> =
            [psql.as_str()].into_iter().chain(words.iter().skip(1).map(String::as_str)).collect();
        let limited = [&["timeout", "10", "env", "PGCONNECT_TIMEOUT=6"], &words[..]].concat();
        Ok(judge(&self.run(&limited)?, expected))
    }

    /// A `psql` in it that has had its first answer and waits for a second that would take ten minutes.
    pub fn open_session(&self, host: &str) -> Result<Session> {
        let mut kubectl = Command::new(self.cluster.kubectl_path());
        kubectl.args(["--namespace", &self.namespace, "exec", &self.name, "--"]);
        kubectl.arg(postgres_dir()?.join("psql")).args(talk(host));
        self.cluster.lab.watch_session(&mut kubectl, &format!("session-{}", self.name))
    }

    pub fn logs(&self) -> Result<String> {
        self.kubectl(&["logs", &self.name])
    }

    /// Deletes it, and waits until it is gone.
    pub fn delete(self) -> Result<()> {
        self.kubectl(&["delete", "pod", &self.name])?;
        std::mem::forget(self);
        Ok(())
    }

    fn kubectl(&self, args: &[&str]) -> Result<String> {
        let args: Vec<&str> =
            ["--namespace", &self.namespace].into_iter().chain(args.iter().copied()).collect();
        self.cluster.kubectl(&args)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Err(err) = self.kubectl(&["delete", "pod", &self.name, "--wait=false"]) {
            eprintln!("the pod {} stays: {err:#}", self.name);
        }
    }
}

/// `spec` of a pod of busybox.
pub fn busybox(command: &[&str]) -> Value {
    json!({"containers": [container(PAUSE, command)]})
}

/// `spec` of a pod that has this machine's programs: clients of databases, the probes of the lab.
pub fn machine(command: &[&str]) -> Result<Value> {
    let own = std::env::current_exe().context("cannot find the own binary")?;
    let Some(built) = own.ancestors().find(|dir| dir.join("enforcer-lab").is_file()) else {
        bail!("no `enforcer-lab` beside {}; run `cargo xtask build`", own.display());
    };
    let mut main = container(MACHINE, command);
    main["volumeMounts"] = json!([
        {"name": "usr", "mountPath": "/usr", "readOnly": true},
        {"name": "lab", "mountPath": "/lab", "readOnly": true},
    ]);
    Ok(json!({
        "containers": [main],
        "volumes": [
            {"name": "usr", "hostPath": {"path": "/usr", "type": "Directory"}},
            {"name": "lab", "hostPath": {"path": built, "type": "Directory"}},
        ],
    }))
}

fn container(image: &str, command: &[&str]) -> Value {
    json!({"name": "main", "image": image, "imagePullPolicy": "Never", "command": command})
}
