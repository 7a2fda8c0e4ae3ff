//! Objects in numbers: a destination and a connection each, all of which select every pod.

use crate::lab::manifests::{CLUSTER, GRANTED, PROJECT};

pub const PORT: u16 = 5432;

/// One destination.
pub fn destination(name: &str, gateway: &str, endpoint: &str) -> String {
    format!(
        "---\napiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {{name: {name}, namespace: {PROJECT}}}\n\
         spec:\n  gateways: [{gateway}]\n  endpoints: [{{address: {endpoint}}}]\n"
    )
}

/// A connection of the same name as its destination, for the pods that have a label.
pub fn connection(name: &str, (key, value): (&str, &str)) -> String {
    format!(
        "---\napiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: {{name: {name}, namespace: \
         {PROJECT}}}\nspec:\n  source:\n    kind: KubernetesCluster\n    name: {CLUSTER}\n    podSelector: \
         {{matchLabels: {{{key}: {value}}}}}\n    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: \
         {PROJECT}}}}}\n  destination: {{kind: Postgres, name: {name}}}\n"
    )
}

/// Names of many destinations.
pub fn names(count: usize) -> impl Iterator<Item = String> + Clone {
    (0..count).map(|number| format!("db-{number:05}"))
}

/// All of them in one text.
pub fn destinations(count: usize, gateway: &str, endpoint: &str) -> String {
    names(count).map(|name| destination(&name, gateway, endpoint)).collect()
}

/// A connection to each, for all granted pods.
pub fn connections(count: usize) -> String {
    names(count).map(|name| connection(&name, GRANTED)).collect()
}
