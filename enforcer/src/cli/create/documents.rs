//! From the flags of each kind to its object. Pure.

use clap::ValueEnum;

use super::{Request, What};
use crate::model::{
    ApplicationSpec, ConnectionSource, DatabaseSpec, DestinationRef, Endpoint, InstanceSpec, Kind,
    KubernetesClusterSpec, Metadata, Object, ObjectKey, ServiceConnectionSpec, SourceKind, SourceMode, Spec,
    TunnelGatewaySpec,
};

/// [`SourceMode`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Mode {
    Masquerade,
    Preserve,
}

pub(super) fn request(what: What) -> Request {
    match what {
        What::Serviceconnection(args) => connection(*args),
        What::Keyvaluestore(args) => instance(Kind::KeyValueStore, Spec::KeyValueStore, args),
        What::Mysql(args) => instance(Kind::MySQL, Spec::MySQL, args),
        What::Postgres(args) => instance(Kind::Postgres, Spec::Postgres, args),
        What::Mysqldatabase(args) => database(Kind::MySQLDatabase, Spec::MySQLDatabase, args),
        What::Postgresdatabase(args) => database(Kind::PostgresDatabase, Spec::PostgresDatabase, args),
        What::Application(args) => Request {
            kind: Kind::Application,
            common: args.common,
            project: args.project.project,
            spec: Spec::Application(ApplicationSpec {
                pod_selector: args.pod_selector,
                services: args.service,
            }),
        },
        What::Kubernetescluster(args) => Request {
            kind: Kind::KubernetesCluster,
            common: args.common,
            project: args.project.project,
            spec: Spec::KubernetesCluster(KubernetesClusterSpec { cluster_name: args.cluster_name }),
        },
        What::Gateway(args) => gateway(*args),
    }
}

fn connection(args: super::ConnectionArgs) -> Request {
    let (kind, name) = args.source;
    Request {
        kind: Kind::ServiceConnection,
        common: args.common,
        project: args.project.project,
        spec: Spec::ServiceConnection(ServiceConnectionSpec {
            source: ConnectionSource {
                kind,
                name,
                pod_selector: args.source_pod_selector,
                namespace_selector: args.source_namespace_selector,
            },
            destination: args.destination,
            ports: args.port,
            valid_until: args.valid_until,
        }),
    }
}

fn instance(kind: Kind, spec: fn(InstanceSpec) -> Spec, args: super::InstanceArgs) -> Request {
    let endpoints = args.endpoint.into_iter().map(|address| Endpoint { address }).collect();
    Request {
        kind,
        common: args.common,
        project: args.project.project,
        spec: spec(InstanceSpec { gateways: args.gateway, ports: args.port, endpoints }),
    }
}

fn database(kind: Kind, spec: fn(DatabaseSpec) -> Spec, args: super::DatabaseArgs) -> Request {
    let database = args.database.or_else(|| args.common.name.clone()).unwrap_or_default();
    Request {
        kind,
        common: args.common,
        project: args.project.project,
        spec: spec(DatabaseSpec { instance: args.instance, database }),
    }
}

fn gateway(args: super::GatewayArgs) -> Request {
    Request {
        kind: Kind::TunnelGateway,
        common: args.common,
        project: None,
        spec: Spec::TunnelGateway(TunnelGatewaySpec {
            public_key: args.public_key,
            endpoints: args.endpoint,
            mtu: args.mtu,
            allowed_namespaces: args.allowed_namespace,
            allowed_backends: args.allowed_backend,
            source_mode: match args.source_mode {
                Mode::Masquerade => SourceMode::Masquerade,
                Mode::Preserve => SourceMode::Preserve,
            },
            guarded_cidrs: args.guarded_cidr,
            cross_namespace_sources: args.cross_namespace_sources,
        }),
    }
}

pub(super) fn object(name: String, namespace: String, spec: Spec) -> Object {
    Object { metadata: Metadata { name, namespace, ..Metadata::default() }, spec }
}

/// What a name that is made begins with.
pub(super) fn leads_to(spec: &Spec) -> Option<&str> {
    match spec {
        Spec::ServiceConnection(spec) => Some(&spec.destination.name),
        Spec::MySQLDatabase(spec) | Spec::PostgresDatabase(spec) => Some(&spec.instance),
        _ => None,
    }
}

/// Objects without which this one is not valid. A cluster needs no object of its own.
pub(super) fn referred(object: &Object) -> Vec<ObjectKey> {
    let project = object.metadata.namespace.as_str();
    let beside = |kind, name: &str| ObjectKey::new(kind, project, name);
    let to = |destination: &DestinationRef| beside(destination.kind, &destination.name);
    match &object.spec {
        Spec::ServiceConnection(spec) => {
            let application = (spec.source.kind == SourceKind::Application)
                .then(|| beside(Kind::Application, &spec.source.name));
            application.into_iter().chain([to(&spec.destination)]).collect()
        }
        Spec::KeyValueStore(spec) | Spec::MySQL(spec) | Spec::Postgres(spec) => {
            spec.gateways.iter().map(|name| ObjectKey::new(Kind::TunnelGateway, "", name)).collect()
        }
        Spec::MySQLDatabase(spec) => vec![beside(Kind::MySQL, &spec.instance)],
        Spec::PostgresDatabase(spec) => vec![beside(Kind::Postgres, &spec.instance)],
        Spec::Application(spec) => spec.services.iter().map(|service| to(&service.target)).collect(),
        _ => Vec::new(),
    }
}
