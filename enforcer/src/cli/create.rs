//! `create`: one object from flags, checked as its YAML would be, and written where objects are.

mod documents;

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{
    input, names, out,
    place::{DryRun, Place, PlaceArgs, absence},
    show, wait,
};
use crate::{
    model::{
        AllowedBackend, DestinationRef, Kind, LabelSelector, Object, PortRef, ServicePort, ServiceReference,
        SourceKind, Spec,
    },
    source::manifests,
};

#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(subcommand)]
    what: What,
}

/// Every kind has its flags; the name may be left out, one is made then.
#[derive(Debug, Subcommand)]
enum What {
    /// Let pods reach a service
    #[command(alias = "sc")]
    Serviceconnection(Box<ConnectionArgs>),
    /// A key-value store outside the cluster (port 6379)
    #[command(alias = "kvs")]
    Keyvaluestore(InstanceArgs),
    /// A MySQL server outside the cluster (port 3306)
    #[command(alias = "my")]
    Mysql(InstanceArgs),
    /// A PostgreSQL server outside the cluster (port 5432)
    #[command(alias = "pg")]
    Postgres(InstanceArgs),
    /// One database of a MySQL server
    #[command(alias = "mydb")]
    Mysqldatabase(DatabaseArgs),
    /// One database of a PostgreSQL server
    #[command(alias = "pgdb")]
    Postgresdatabase(DatabaseArgs),
    /// A workload with references to services: its connections are managed for it
    #[command(alias = "app")]
    Application(ApplicationArgs),
    /// A cluster, as the connections of a project call it
    #[command(alias = "kc")]
    Kubernetescluster(ClusterArgs),
    /// The far end of the tunnels: an administrator's (TunnelGateway)
    #[command(alias = "tgw")]
    Gateway(Box<GatewayArgs>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    Yaml,
    Json,
    /// KIND/NAME alone
    Name,
}

#[derive(Args, Debug)]
struct Common {
    /// Name of the object; one is made where none is given
    name: Option<String>,
    /// Print what would be written, and write nothing; `server`: after the API server has looked at it
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none", hide_possible_values = true, hide_default_value = true, value_name = "client|server")]
    dry_run: DryRun,
    /// Print the object instead of a sentence
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    wait: wait::WaitArgs,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args, Debug)]
struct Project {
    /// Project (namespace) of the object [default: that of the kubeconfig's context, else `default`]
    #[arg(short = 'n', long = "project", alias = "namespace", value_name = "NAME")]
    project: Option<String>,
}

#[derive(Args, Debug)]
struct ConnectionArgs {
    /// Where from: `kubernetescluster/NAME` (the agents' --cluster-name) or `application/NAME`
    #[arg(long, value_name = "KIND/NAME", value_parser = input::source, add = super::completions::sources())]
    source: (SourceKind, String),
    /// Where to: a database, a server or a key-value store of the same project
    #[arg(long, value_name = "KIND/NAME", value_parser = input::destination, add = super::completions::destinations())]
    destination: DestinationRef,
    /// Only pods with these labels: `app=cart,tier in (web,api),!old`
    #[arg(long, value_name = "SELECTOR", value_parser = super::selector::parse)]
    source_pod_selector: Option<LabelSelector>,
    /// Only pods of namespaces with these labels: `kubernetes.io/metadata.name=production`
    #[arg(long, value_name = "SELECTOR", value_parser = super::selector::parse)]
    source_namespace_selector: Option<LabelSelector>,
    /// Only these ports of the destination
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_delimiter = ',', value_parser = input::port)]
    port: Vec<PortRef>,
    /// When it ends by itself (RFC 3339, like 2027-01-01T00:00:00Z)
    #[arg(long, value_name = "TIME")]
    valid_until: Option<String>,
    #[command(flatten)]
    project: Project,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct InstanceArgs {
    /// TunnelGateway that leads there; several share the traffic
    #[arg(long, value_name = "NAME", value_delimiter = ',', required = true, add = super::completions::names_of(Kind::TunnelGateway))]
    gateway: Vec<String>,
    /// Address of a backend behind the gateway
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    endpoint: Vec<std::net::IpAddr>,
    /// What it offers; TARGET is the backends' port where it differs [default: the kind's own port]
    #[arg(long, value_name = "[NAME=]PORT[:TARGET][/PROTOCOL]", value_delimiter = ',', value_parser = input::offered_port)]
    port: Vec<ServicePort>,
    #[command(flatten)]
    project: Project,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct DatabaseArgs {
    /// The server that has it: name of a MySQL or Postgres of the same project
    #[arg(long, value_name = "NAME", add = super::completions::instances())]
    instance: String,
    /// What the server calls it [default: the object's name]
    #[arg(long, value_name = "NAME", required_unless_present = "name")]
    database: Option<String>,
    #[command(flatten)]
    project: Project,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ApplicationArgs {
    /// Its pods: `app=cart`
    #[arg(long, value_name = "SELECTOR", value_parser = super::selector::parse)]
    pod_selector: LabelSelector,
    /// A service that it uses, by the name it has in the application
    #[arg(long, value_name = "NAME=KIND/NAME", value_delimiter = ',', value_parser = input::service)]
    service: Vec<ServiceReference>,
    #[command(flatten)]
    project: Project,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ClusterArgs {
    /// The agents' --cluster-name, where it differs from the object's name
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    #[command(flatten)]
    project: Project,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct GatewayArgs {
    /// The gateway's WireGuard key, its public half in base64 (`enforcer keygen` prints it)
    #[arg(long, value_name = "KEY")]
    public_key: String,
    /// Where nodes reach it
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',', required = true)]
    endpoint: Vec<String>,
    /// Namespace whose destinations may use it
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    allowed_namespace: Vec<String>,
    /// What it may reach: `10.0.0.0/8:5432,6000-6100/UDP`
    #[arg(long, value_name = "CIDR:PORTS", value_parser = input::backend)]
    allowed_backend: Vec<AllowedBackend>,
    /// Whose address backends see: the gateway's, or the workload's own (`preserve`)
    #[arg(long, value_enum, default_value = "masquerade")]
    source_mode: documents::Mode,
    /// Range that nobody reaches but through a grant
    #[arg(long = "guarded-cidr", value_name = "CIDR", value_delimiter = ',')]
    guarded_cidr: Vec<String>,
    /// Whether connections may name pods of other namespaces as their source
    #[arg(long)]
    cross_namespace_sources: bool,
    /// MTU of its tunnels
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    #[command(flatten)]
    common: Common,
}

pub fn run(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let Request { kind, common, project, spec } = documents::request(args.what);
    let place = common.place.choose();
    let place = match (place, common.dry_run) {
        (Ok(place), _) => Some(place),
        // What is only printed needs no place to be.
        (Err(_), DryRun::Client) => None,
        (Err(error), DryRun::None | DryRun::Server) => return Err(error),
    };
    let project = match (kind.namespaced(), project) {
        (false, _) => String::new(),
        (true, Some(project)) => project,
        (true, None) => place.as_deref().map_or("default", Place::home).to_owned(),
    };
    let name = match common.name {
        Some(name) => name,
        None => names::generate(kind, documents::leads_to(&spec))?,
    };
    let object = documents::object(name, project, spec);
    check(&object)?;
    let document = object.document();
    if common.dry_run == DryRun::Client {
        return print(&document, common.output.unwrap_or(Format::Yaml));
    }
    let Some(place) = place else { bail!("there is no place to write to") };
    notes(&*place, &object);
    if common.dry_run == DryRun::Server {
        let made = place.try_create(&document)?;
        let Some(format) = common.output else {
            out::data(&format!("{} created (server dry run)\n", show::title(&document)))?;
            return Ok(ExitCode::SUCCESS);
        };
        return print(&made, format);
    }
    let written = place.create(&document)?;
    match common.output {
        Some(format) => drop(print(&document, format)?),
        None => out::data(&format!("{} created{written}\n", show::title(&document)))?,
    }
    if common.wait.wait {
        wait::until_ready(&*place, &object.key(), common.wait.timeout)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}

/// What the flags of one kind come to.
struct Request {
    kind: Kind,
    common: Common,
    project: Option<String>,
    spec: Spec,
}

/// The object is read as it would be from a file: what is wrong is said in the same words.
fn check(object: &Object) -> anyhow::Result<()> {
    let text = serde_norway::to_string(&object.document())?;
    let read = manifests::read_text("object.yaml", &text);
    if let Some(problem) = read.problems.first() {
        let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
        bail!("{}: {field}{}", object.key(), problem.message);
    }
    Ok(())
}

fn print(document: &Value, format: Format) -> anyhow::Result<ExitCode> {
    out::data(&match format {
        Format::Yaml => serde_norway::to_string(document)?,
        Format::Json => serde_json::to_string_pretty(document)? + "\n",
        Format::Name => show::title(document) + "\n",
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What it refers to may come later; that it is not there now is worth a word.
fn notes(place: &dyn Place, object: &Object) {
    for key in documents::referred(object) {
        // Whoever may create an object may not be allowed to see every other one.
        if let Ok(None) = place.get(&key) {
            out::note(&format!("note: {}", absence(place, &key)));
        }
    }
}
