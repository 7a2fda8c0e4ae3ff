//! Labels that change while sessions are open.

use enforcer_tests::lab::{Lab, Role, query::Answer, wait};

use crate::{
    shared::lab,
    turn::{are_cut, comes_to, sessions},
};

/// The project's namespace with one more label, and a connection that asks for it.
fn namespace(lab: &Lab, env: &str) {
    let yaml = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {{kubernetes.io/metadata.name: shop, env: {env}}}\n\
         ---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: other}}\n"
    );
    lab.save("namespaces.yaml", &yaml).expect("the namespaces are saved");
}

#[test]
fn a_namespace_label_that_changes_takes_the_grants_of_its_pods_along() {
    let lab = lab();
    namespace(&lab, "test");
    let yaml =
        std::fs::read_to_string(lab.id.manifests().join("connection-orders.yaml")).expect("a connection");
    let asks = yaml.replace("kubernetes.io/metadata.name: shop", "env: production");
    assert_ne!(asks, yaml);
    lab.save("connection-orders.yaml", &asks).expect("the connection is saved");
    let place = lab.place("cart");
    comes_to(&lab, "cart", &place, &Answer::NotPermitted);
    namespace(&lab, "production");
    comes_to(&lab, "cart", &place, &Answer::Works);
    let open = sessions(&lab, "cart", "namespace");
    namespace(&lab, "test");
    are_cut("the namespace is not in production any more", open);
    comes_to(&lab, "cart", &place, &Answer::NotPermitted);
}

#[test]
fn a_namespace_that_calls_itself_by_anothers_name_is_not_the_other() {
    let lab = lab();
    // Pods of other namespaces count here, where their namespace's labels say so.
    lab.save_tunnel_ends("  crossNamespaceSources: true\n").expect("the gateway is saved");
    // Kubernetes would not let it have this label; a folder does.
    let yaml = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: other\n  labels: {kubernetes.io/metadata.name: shop}\n\
                ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
    lab.save("namespaces.yaml", yaml).expect("the namespaces are saved");
    let read = || {
        let text = lab.ask(Role::Agent, &["get", "namespace", "other", "-o", "json"]).unwrap_or_default();
        text.contains("\"kubernetes.io/metadata.name\": \"shop\"")
    };
    wait::for_true("the agent has read it", read).expect("the agent has read it");
    comes_to(&lab, "stray", &lab.place("stray"), &Answer::NotPermitted);
    comes_to(&lab, "cart", &lab.place("cart"), &Answer::Works);
}
