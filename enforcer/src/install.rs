//! `enforcer install`: everything that a cluster needs, as YAML on standard output. Applies nothing.
//!
//! ```text
//! values, what the server serves ─▶ parts (pure) ─▶ YAML
//!                                        └────────▶ kustomize base, Helm chart
//! ```

mod access;
pub mod capabilities;
mod fill;
mod node;
pub mod package;
mod pod;
pub mod served;
mod server;
mod services;
pub mod uninstall;
pub mod values;
mod yaml;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::{
    fill::Fill,
    pod::PROJECT,
    served::{ADMISSION, ADMISSION_BETA, KubeVersion, Served},
    values::Values,
};
use crate::{
    model::crd,
    source::kubernetes::{Cluster, Connect},
};

/// Where all of it is.
pub const NAMESPACE: &str = "enforcer-system";

/// What `enforcer install` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set a value; later ones win, and all of them over --values
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// YAML with values; may be given several times, later files win
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Kubernetes' version, for a server that cannot be asked now [default: it is asked]
    #[arg(long, value_name = "VERSION")]
    kube_version: Option<KubeVersion>,
    #[command(flatten)]
    connect: Connect,
    /// Write a package with the defaults into --output instead
    #[arg(long, value_enum, hide = true, requires = "output")]
    format: Option<package::Format>,
    #[arg(long, value_name = "DIR", hide = true, requires = "format")]
    output: Option<PathBuf>,
}

impl Args {
    /// What package is to be written, and where to.
    pub fn package(&self) -> Option<(package::Format, &Path)> {
        Some((self.format?, self.output.as_deref()?))
    }
}

/// What is printed, and what a person should know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifests {
    pub documents: Vec<Value>,
    /// What is left out for this server, and why.
    pub notes: Vec<String>,
}

impl Manifests {
    /// One stream of documents, as `kubectl apply -f -` takes it.
    pub fn yaml(&self) -> Result<String, serde_norway::Error> {
        self.documents.iter().map(|document| Ok(format!("---\n{}", yaml::document(document)?))).collect()
    }
}

/// Reads the values, asks the server unless its version is given, and makes the manifests.
pub async fn run(args: &Args) -> anyhow::Result<Manifests> {
    let values = values::read(&args.values, &args.set)?;
    if let Some(version) = args.kube_version {
        return Ok(manifests(&values, &Served::by(version)));
    }
    let asked = async {
        let cluster = Cluster::connect(&args.connect).await?;
        let served = server::served(&cluster).await?;
        anyhow::Ok((cluster, served))
    };
    let (cluster, served) = match asked.await {
        Ok(asked) => asked,
        Err(error) => {
            let served = Served::newest();
            let mut manifests = manifests(&values, &served);
            manifests
                .notes
                .insert(0, format!("no server could be asked, for an old one say --kube-version: {error:#}"));
            return Ok(manifests);
        }
    };
    let mut manifests = manifests(&values, &served);
    match server::taken(&cluster).await {
        Ok(taken) => values.check_ranges(&taken)?,
        Err(error) => {
            let note = format!("whether the ranges are free could not be asked: {error:#}");
            manifests.notes.push(note);
        }
    }
    Ok(manifests)
}

/// What these values are on a server that serves this; pure.
pub fn manifests(values: &Values, served: &Served) -> Manifests {
    let fill = Fill::values(values, served);
    let wanted = |part: &Part| part.is_there(&fill, served);
    let mut documents: Vec<Value> =
        parts(&fill).into_iter().filter(wanted).flat_map(|part| part.documents).collect();
    if !served.has(ADMISSION) && served.has(ADMISSION_BETA) {
        documents.extend(access::policies("v1beta1"));
    }
    Manifests { documents, notes: served.notes() }
}

/// Documents that go together: a file of the chart.
struct Part {
    file: &'static str,
    only: Only,
    documents: Vec<Value>,
}

/// When a part is there.
enum Only {
    Always,
    /// Where this value is true, or a text that is not empty.
    With(&'static str),
    /// Where it is not.
    Without(&'static str),
    /// Where the server serves this API.
    Served(&'static str),
}

impl Part {
    fn is_there(&self, fill: &Fill<'_>, served: &Served) -> bool {
        let is_set = |key| ![json!(false), json!("")].contains(&fill.value(key));
        match self.only {
            Only::Always => true,
            Only::With(key) => is_set(key),
            Only::Without(key) => !is_set(key),
            Only::Served(api) => served.has(api),
        }
    }
}

/// All parts, in the order in which they are applied.
fn parts(fill: &Fill<'_>) -> Vec<Part> {
    let part = |file, only, documents| Part { file, only, documents };
    let with = |role, documents: Vec<Value>| [access::of(role), documents].concat();
    let agent = |project| with("agent", vec![node::agent(fill, project)]);
    let controller = |project| {
        let budget = services::disruption_budget(fill, "controller");
        with("controller", vec![services::controller(fill, project), budget])
    };
    vec![
        part("namespace", Only::Always, vec![namespace()]),
        part("crds", Only::Always, crd::definitions(fill.rules())),
        part("admission", Only::Served(ADMISSION), access::policies("v1")),
        part("agent", Only::Without(PROJECT), agent(false)),
        part("agent-of-project", Only::With(PROJECT), agent(true)),
        part("tunnel", Only::With("tunnel.enabled"), with("tunnel", vec![node::tunnel(fill)])),
        // Most gateways are elsewhere, and read with the token of this account.
        part("gateway-access", Only::Always, access::of("gateway")),
        // Other clusters that have their connections here read and tell of their nodes with that of this one.
        part("member-access", Only::Always, access::of("member")),
        part("controller", Only::Without(PROJECT), controller(false)),
        part("controller-of-project", Only::With(PROJECT), controller(true)),
        part("gateway", Only::With("gateway.enabled"), vec![services::gateway(fill)]),
        part("dns", Only::With("dns.enabled"), with("dns", services::dns(fill))),
    ]
}

fn namespace() -> Value {
    // Agents and gateways are no ordinary pods.
    let privileged =
        ["enforce", "audit", "warn"].map(|mode| (format!("pod-security.kubernetes.io/{mode}"), "privileged"));
    let mut labels = labels("enforcer");
    for (key, value) in privileged {
        labels[key] = json!(value);
    }
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": labels } })
}

fn name(role: &str) -> String {
    format!("enforcer-{role}")
}

fn labels(role: &str) -> Value {
    json!({ "app.kubernetes.io/name": "enforcer", "app.kubernetes.io/component": role })
}

#[cfg(test)]
mod tests;
