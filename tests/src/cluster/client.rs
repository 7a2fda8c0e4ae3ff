//! A cluster as those see it who have a kubeconfig: by kubectl, and by the commands of enforcer.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::{
    self, Id,
    command::{finish, finish_with, inside},
    wait,
};

/// Images are pulled and unpacked, pods are scheduled and started, all on a busy machine.
pub const WATCHDOG: Duration = Duration::from_mins(4);
/// What a container waits for that no time brings.
const NO_IMAGE: &[&str] = &["ErrImageNeverPull", "ErrImagePull", "ImagePullBackOff", "InvalidImageName"];

/// A user who may do everything.
pub struct Client {
    kubectl: PathBuf,
    place: Place,
    /// Folder of what runs on while a test does something else.
    pub logs: PathBuf,
}

/// From where the cluster is reached.
enum Place {
    /// From here, with the kubeconfig that the environment names.
    Here,
    /// From a lab's node, with this kubeconfig.
    Node(Id, PathBuf),
}

impl AsRef<Self> for Client {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Client {
    /// For a cluster that this machine reaches, with this kubectl.
    pub fn here(kubectl: PathBuf, logs: PathBuf) -> Self {
        Self { kubectl, place: Place::Here, logs }
    }

    /// For the cluster of a lab: `kubectl` enters its network by itself.
    pub(super) fn of_lab(id: &Id, kubectl: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { kubectl, place: Place::Node(id.clone(), kubeconfig), logs: id.dir.join("log") }
    }

    /// A program that is kubectl for this cluster.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// Runs kubectl, and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        finish(Command::new(&self.kubectl).args(args))
    }

    /// The same with standard input, as for `apply --filename -`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        finish_with(Command::new(&self.kubectl).args(args), input)
    }

    /// Runs a command of enforcer, and returns what it prints.
    pub fn enforcer(&self, args: &[&str]) -> Result<String> {
        let program = lab::enforcer()?;
        match &self.place {
            Place::Here => finish(Command::new(program).args(args)),
            Place::Node(id, kubeconfig) => {
                let mut command = inside(&id.netns("node"), &id.tools(), &program.to_string_lossy());
                finish(command.args(args).env("KUBECONFIG", kubeconfig))
            }
        }
    }

    /// Applies YAML.
    pub fn apply(&self, documents: &str) -> Result<String> {
        self.kubectl_with(&["apply", "--filename", "-"], documents)
    }

    /// The same of objects whose definition was made a moment ago and is not served at once.
    pub fn apply_soon(&self, documents: &str) -> Result<()> {
        let mut last = String::new();
        let taken = wait::until("the objects are taken", || {
            self.apply(documents).map(drop).map_err(|err| last = format!("{err:#}")).ok()
        });
        taken.with_context(|| last.clone())
    }

    /// An object; `namespace` says nothing of one that has none.
    pub fn get(&self, kind: &str, name: &str, namespace: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "--namespace", namespace, "--output", "json"])?;
        serde_json::from_str(&text).context("kubectl prints JSON")
    }

    /// Waits until a condition of an object is this, as `True Ready: `.
    pub fn wait_for(&self, [kind, name, namespace]: [&str; 3], condition: &str, wanted: &str) -> Result<()> {
        let mut last = String::new();
        let waited = wait::until_within(WATCHDOG, &format!("{kind} {name} is {condition} {wanted}"), || {
            last = match self.get(kind, name, namespace) {
                Ok(object) => condition_of(&object, condition),
                Err(err) => format!("{err:#}"),
            };
            (last == wanted).then_some(())
        });
        waited.with_context(|| format!("it is \"{last}\""))
    }

    /// Waits until all pods of something are ready, as `daemonset/enforcer-agent`.
    pub fn rolled_out(&self, part: &str, namespace: &str) -> Result<()> {
        let args = ["--namespace", namespace, "rollout", "status", "--watch=false", part];
        let mut last = String::new();
        let ready = wait::until_within(WATCHDOG, &format!("{part} is ready"), || {
            last = match self.kubectl(&args) {
                Ok(said) if said.contains("successfully rolled out") => return Some(Ok(())),
                Ok(said) => said,
                Err(err) => format!("{err:#}"),
            };
            self.image_is_there(namespace).err().map(Err)
        });
        ready.with_context(|| format!("{}\n{}", last.trim(), self.pods(namespace)))?
    }

    /// An error when a node has no image for one of these pods and gets none.
    pub fn image_is_there(&self, namespace: &str) -> Result<()> {
        let text = self.kubectl(&["--namespace", namespace, "get", "pods", "--output", "json"])?;
        let pods: Value = serde_json::from_str(&text).context("kubectl prints JSON")?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
                let why = container["state"]["waiting"]["reason"].as_str().unwrap_or_default();
                if NO_IMAGE.contains(&why) {
                    let (node, image) = (&pod["spec"]["nodeName"], &container["image"]);
                    bail!(
                        "{why}: the node {node} has no image {image}: push it where the node pulls from, or, on the node, \
                         `ctr --namespace k8s.io images import ARCHIVE`"
                    );
                }
            }
        }
        Ok(())
    }

    /// What runs where, for whoever reads why a test failed.
    fn pods(&self, namespace: &str) -> String {
        let args = ["--namespace", namespace, "get", "pods", "--output", "wide"];
        self.kubectl(&args).unwrap_or_else(|err| format!("{err:#}"))
    }
}

/// `True Ready: why`; empty where it is not said.
fn condition_of(object: &Value, condition: &str) -> String {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|found| found["type"] == condition);
    found.map_or_else(String::new, |found| {
        let text = |field: &str| found[field].as_str().unwrap_or_default();
        format!("{} {}: {}", text("status"), text("reason"), text("message"))
    })
}
