//! Pods of the cluster, as tests start them.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{PAUSE, client::Client};
use crate::lab::{
    Outcome,
    manifests::Service,
    query::{Answer, client, judge},
    session::{Session, talk},
    wait,
};

/// Made by `cargo xtask`: links to where Debian's programs are, and nothing else.
pub const MACHINE: &str = "enforcer.dev/machine:test";

/// Runs what follows. Debian's own `psql` is a script that needs settings; the real one is not where a shell looks.
pub const PROGRAMS: [&str; 4] =
    ["sh", "-c", "PATH=\"$(echo /usr/lib/postgresql/*/bin):$PATH\"; exec \"$@\"", "sh"];
/// The same for one answer of `psql`, soon.
const PSQL: [&str; 8] =
    [PROGRAMS[0], PROGRAMS[1], PROGRAMS[2], PROGRAMS[3], "timeout", "10", "env", "PGCONNECT_TIMEOUT=6"];

/// A pod, gone when this is.
pub struct Pod<'a> {
    client: &'a Client,
    namespace: String,
    name: String,
}

impl<'a> Pod<'a> {
    /// Makes it from its `metadata` and `spec`; it ends at once when it is told to.
    pub fn start(client: &'a impl AsRef<Client>, metadata: &Value, mut spec: Value) -> Result<Self> {
        spec["terminationGracePeriodSeconds"] = json!(0);
        let text = |field: &str| metadata[field].as_str().map(str::to_owned);
        let client = client.as_ref();
        let pod = Self {
            client,
            namespace: text("namespace").unwrap_or_else(|| "default".into()),
            name: text("name").context("the pod has no name")?,
        };
        let document = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        client.kubectl_with(&["create", "--filename", "-"], &document.to_string())?;
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
        let mut kubectl = Command::new(self.client.kubectl_path());
        kubectl.args(["--namespace", &self.namespace, "exec", &self.name, "--"]).args(command);
        Outcome::of(&mut kubectl)
    }

    /// What PostgreSQL at this host answers it.
    pub fn query(&self, host: &str) -> Result<Answer> {
        let (words, expected) = client(Service::Postgres, host);
        let words: Vec<&str> = PSQL.iter().copied().chain(words.iter().map(String::as_str)).collect();
        Ok(judge(&self.run(&words)?, expected))
    }

    /// A `psql` in it that has had its first answer and waits for a second that would take ten minutes.
    pub fn open_session(&self, host: &str) -> Result<Session> {
        let mut kubectl = Command::new(self.client.kubectl_path());
        kubectl.args(["--namespace", &self.namespace, "exec", &self.name, "--"]);
        kubectl.args(PROGRAMS).arg("psql").args(talk(host));
        Session::watch(&mut kubectl, self.client.logs.join(format!("session-{}", self.name)))
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
        self.client.kubectl(&args)
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
