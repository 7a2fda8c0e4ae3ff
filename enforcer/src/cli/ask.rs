//! `status` and `get`: one question to a role's control socket.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{kinds, out, status, table};
use crate::{
    control::{self, Request},
    model::Kind,
};

/// Exit code where there is no such object.
pub const NOT_FOUND: u8 = 3;

#[derive(Args, Clone, Debug)]
pub struct SocketArgs {
    /// Control socket of the role to ask [default: $ENFORCER_SOCKET, else the one that is found]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to look for control sockets
    #[arg(long, value_name = "DIR", default_value = "/run/enforcer")]
    pub run_dir: PathBuf,
}

impl SocketArgs {
    pub fn find(&self) -> Result<PathBuf, control::ClientError> {
        // What is run inside of a role's pod asks that role.
        let own = std::env::var_os("ENFORCER_SOCKET").map(PathBuf::from);
        control::find_socket(self.socket.as_ref().or(own.as_ref()).map(PathBuf::as_path), &self.run_dir)
    }

    pub fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        Ok(control::ask(&self.find()?, request)?)
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Yaml,
    Json,
}

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print nothing: whether the role answers is the exit code
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
    /// Fail unless this condition of the role is true; may be given several times
    #[arg(long, value_name = "CONDITION")]
    require: Vec<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

#[derive(Args, Debug)]
pub struct GetArgs {
    /// Kind: any case, plural or short (`sc`, `kvs`, `pg`, `my`, `tgw`, `tn`)
    kind: String,
    /// Only this object
    name: Option<String>,
    /// Only this project (namespace)
    #[arg(short = 'n', long = "project", alias = "namespace", value_name = "NAME")]
    project: Option<String>,
    /// All projects, with a column that names them
    #[arg(short = 'A', long, conflicts_with = "project")]
    all: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    socket: SocketArgs,
}

pub fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = args.socket.ask(&Request::Status)?;
    if !args.quiet {
        out::data(&shown(args.output, &status)?)?;
    }
    match args.require.iter().find_map(|wanted| status::unmet(&status, wanted)) {
        Some(why) => bail!(why),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn shown(format: Format, status: &Value) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(status)? + "\n",
        Format::Yaml => serde_norway::to_string(status)?,
        Format::Table | Format::Wide => status::page(status)?,
    })
}

pub fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let kind = kinds::parse(&args.kind)?;
    let request = Request::Get { kind, namespace: args.project.clone(), name: args.name.clone() };
    let objects = match args.socket.ask(&request)? {
        Value::Array(objects) => objects,
        other => vec![other],
    };
    if objects.is_empty() {
        out::note(&match &args.name {
            Some(name) => format!("enforcer: there is no {kind} {name}"),
            None => format!("there is no {kind}"),
        });
        return Ok(if args.name.is_some() { ExitCode::from(NOT_FOUND) } else { ExitCode::SUCCESS });
    }
    let one = args.name.is_some() && objects.len() == 1;
    out::data(&match args.output {
        Format::Json if one => serde_json::to_string_pretty(&objects[0])? + "\n",
        Format::Json => serde_json::to_string_pretty(&list(&objects))? + "\n",
        Format::Yaml if one => serde_norway::to_string(&objects[0])?,
        Format::Yaml => serde_norway::to_string(&list(&objects))?,
        Format::Table | Format::Wide => as_table(kind, &objects, args.all, args.output == Format::Wide),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(items: &[Value]) -> Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

type Column = (&'static str, fn(&Value) -> String);

fn as_table(kind: Kind, objects: &[Value], all: bool, wide: bool) -> String {
    let namespaces: std::collections::BTreeSet<_> =
        objects.iter().map(|object| text(&object["metadata"]["namespace"])).collect();
    let mut columns: Vec<Column> = Vec::new();
    if kind.namespaced() && (all || namespaces.len() > 1) {
        columns.push(("NAMESPACE", |object| text(&object["metadata"]["namespace"])));
    }
    columns.push(("NAME", |object| text(&object["metadata"]["name"])));
    columns.extend_from_slice(columns_of(kind));
    if wide {
        columns.push(("REASON", |object| {
            let condition = ready(object);
            let (reason, message) = (text(&condition["reason"]), text(&condition["message"]));
            if message.is_empty() { reason } else { format!("{reason}: {message}") }
        }));
    }
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<Vec<String>> =
        objects.iter().map(|object| columns.iter().map(|(_, cell)| cell(object)).collect()).collect();
    table::render(&header, &rows)
}

fn columns_of(kind: Kind) -> &'static [Column] {
    const READY: Column = ("READY", |object| text(&ready(object)["status"]));
    match kind {
        Kind::ServiceConnection => &[
            ("SOURCE", |object| reference(&object["spec"]["source"])),
            ("DESTINATION", |object| reference(&object["spec"]["destination"])),
            ("DESTINATION-DNS", |object| text(&object["status"]["destinationDNS"])),
            READY,
        ],
        Kind::KeyValueStore | Kind::MySQL | Kind::Postgres => &[
            ("GATEWAYS", |object| joined(&object["spec"]["gateways"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            ("DNS", |object| text(&object["status"]["privateNetworkingFQDN"])),
            READY,
        ],
        Kind::MySQLDatabase | Kind::PostgresDatabase => &[
            ("INSTANCE", |object| text(&object["spec"]["instance"])),
            ("DATABASE", |object| text(&object["spec"]["database"])),
            READY,
        ],
        Kind::Pod => &[
            ("NODE", |object| text(&object["spec"]["nodeName"])),
            ("GUARDED", |object| text(&object["status"]["guarded"])),
            ("WORKLOAD-ADDRESSES", |object| joined(&object["status"]["workloadAddresses"])),
        ],
        Kind::TunnelGateway => &[
            ("NUMBER", |object| text(&object["status"]["number"])),
            ("ENDPOINTS", |object| joined(&object["spec"]["endpoints"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            READY,
        ],
        Kind::TunnelNode => &[
            ("NUMBER", |object| text(&object["status"]["number"])),
            ("CLUSTER", |object| text(&object["spec"]["cluster"])),
            ("ADDRESSES", |object| joined(&object["status"]["addresses"])),
            ("RANGES", |object| joined(&object["status"]["ranges"]["blocks"])),
            ("SUBNET", |object| text(&object["status"]["ranges"]["subnet"])),
            READY,
        ],
        Kind::Application => &[READY],
        Kind::KubernetesCluster => &[("CLUSTER", |object| text(&object["spec"]["clusterName"])), READY],
        Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice => &[],
    }
}

/// The condition that a person wants to see: `Ready`, or the first one that is missing on the way there.
pub fn ready(object: &Value) -> &Value {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    for kind in ["Valid", "Programmed"] {
        if let Some(condition) = of(kind).filter(|condition| condition["status"] != "True") {
            return condition;
        }
    }
    of("Ready").or_else(|| of("Programmed")).or_else(|| of("Valid")).unwrap_or(&Value::Null)
}

fn reference(value: &Value) -> String {
    format!("{}/{}", text(&value["kind"]).to_lowercase(), text(&value["name"]))
}

fn joined(value: &Value) -> String {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(text).collect::<Vec<_>>().join(",")
}

/// A scalar as a person reads it; nothing for what is not there.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
