//! Objects as people write them, for tests that ask an API server: a gateway, a database behind it, who may use it.

/// Namespaces whose names selectors can say, also where the server does not label them.
pub fn namespaces(names: &[&str]) -> String {
    let one = |name: &&str| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{kubernetes.io/metadata.name: {name}, \
             pod-security.kubernetes.io/enforce: privileged}}}}\n"
        )
    };
    names.iter().map(one).collect()
}

/// The Postgres `pg` with one server.
pub fn postgres(namespace: &str, gateway: &str, address: &str) -> String {
    format!(
        "---\napiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {{name: pg, namespace: {namespace}}}\n\
         spec: {{gateways: [{gateway}], endpoints: [{{address: {address}}}]}}\n"
    )
}

/// Pods of this namespace and cluster with this label `app` may use it; so is the connection called.
pub fn connection(namespace: &str, cluster: &str, app: &str) -> String {
    format!(
        "---\napiVersion: enforcer.dev/v1alpha1\nkind: ServiceConnection\nmetadata: {{name: {app}, namespace: {namespace}}}\n\
         spec:\n  source: {{kind: KubernetesCluster, name: {cluster}, podSelector: {{matchLabels: {{app: {app}}}}}}}\n  \
         destination: {{kind: Postgres, name: pg}}\n"
    )
}

/// The Application `cart` of pods with that label `app`, and its database in that Postgres, which it calls `db`.
pub fn application(namespace: &str) -> String {
    format!(
        "---\napiVersion: enforcer.dev/v1alpha1\nkind: PostgresDatabase\nmetadata: {{name: app, namespace: {namespace}}}\n\
         spec: {{instance: pg, database: app}}\n\
         ---\napiVersion: enforcer.dev/v1alpha1\nkind: Application\nmetadata: {{name: cart, namespace: {namespace}}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: cart}}}}\n  \
         services: [{{name: db, target: {{kind: PostgresDatabase, name: app}}}}]\n"
    )
}
