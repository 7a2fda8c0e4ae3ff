//! Who may do what: a service account per role, and no more than the role needs.
//!
//! Gateways trust `status`, which only the controller writes. An agent writes its TunnelNode (what it says of itself)
//! and nothing else. Nobody reads or writes a Secret.

use serde_json::{Value, json};

use super::{NAMESPACE, labels, name};
use crate::{
    model::{Kind, crd::GROUP},
    source::kubernetes::MANAGED_BY,
};

const READ: [&str; 3] = ["get", "list", "watch"];

fn ours(what: impl Fn(Kind) -> String) -> Vec<String> {
    Kind::ALL.iter().filter(|kind| kind.is_ours()).map(|kind| what(*kind)).collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

fn read_ours() -> Value {
    json!({ "apiGroups": [GROUP], "resources": ours(|kind| kind.plural().to_owned()), "verbs": READ })
}

/// What names are made of.
fn read_services() -> [Value; 2] {
    [rule("", &["services"], &READ), rule("discovery.k8s.io", &["endpointslices"], &READ)]
}

/// What a role that knows pods looks at.
fn read_cluster() -> Vec<Value> {
    let pods = rule("", &["namespaces", "nodes", "pods"], &READ);
    [pods].into_iter().chain(read_services()).collect()
}

fn agent() -> Vec<Value> {
    let mut rules = vec![read_ours()];
    rules.extend(read_cluster());
    rules.push(rule(GROUP, &["tunnelnodes"], &["create", "patch"]));
    rules
}

fn controller() -> Vec<Value> {
    let mut rules = vec![read_ours()];
    rules.extend(read_cluster());
    let status = ours(|kind| format!("{}/status", kind.plural()));
    rules.push(json!({ "apiGroups": [GROUP], "resources": status, "verbs": ["patch"] }));
    // Of those that an Application has. Others are their projects' own, it never writes them.
    rules.push(rule(GROUP, &["serviceconnections"], &["create", "patch", "delete"]));
    // Owner references that block their owner's deletion, where the server asks for this.
    rules.push(json!({ "apiGroups": [GROUP], "resources": ours(|kind| format!("{}/finalizers", kind.plural())), "verbs": ["update"] }));
    // The taint enforcer.dev/not-ready.
    rules.push(rule("", &["nodes"], &["patch"]));
    rules.push(rule("", &["services"], &["create", "patch", "delete"]));
    rules.push(rule("discovery.k8s.io", &["endpointslices"], &["create", "patch", "delete"]));
    // Of Applications. Their names are anybody's, so that RBAC cannot say which; where there are policies, they do.
    rules.push(rule("", &["configmaps"], &["get", "list", "watch", "create", "patch", "delete"]));
    // Refusals; one that is said again counts up.
    rules.push(rule("", &["events"], &["get", "create", "patch"]));
    rules
}

/// A gateway says nothing to the API.
fn gateway() -> Vec<Value> {
    let mut rules = vec![read_ours()];
    rules.extend(read_cluster());
    rules
}

/// Agents and controllers of other clusters: of themselves they tell no more than an agent here.
fn member() -> Vec<Value> {
    vec![read_ours(), rule(GROUP, &["tunnelnodes"], &["create", "patch"])]
}

fn dns() -> Vec<Value> {
    read_services().to_vec()
}

/// The service account of a role, and its ClusterRole.
pub fn of(role: &str) -> Vec<Value> {
    let (name, labels) = (name(role), labels(role));
    let rules = match role {
        "agent" => agent(),
        "controller" => controller(),
        "gateway" => gateway(),
        "dns" => dns(),
        "member" => member(),
        _ => Vec::new(),
    };
    let mut documents = vec![json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": labels },
        "automountServiceAccountToken": false,
    })];
    if !rules.is_empty() {
        documents.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": { "name": name, "labels": labels },
            "rules": rules,
        }));
        documents.push(binding("ClusterRole", role));
    }
    if role == "controller" {
        documents.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": { "name": name, "namespace": NAMESPACE, "labels": labels },
            "rules": [rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch"])],
        }));
        documents.push(binding("Role", role));
    }
    documents
}

fn binding(of: &str, role: &str) -> Value {
    let (name, labels) = (name(role), labels(role));
    let mut binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": format!("{of}Binding"),
        "metadata": { "name": name, "labels": labels },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": of, "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACE }],
    });
    if of == "Role" {
        binding["metadata"]["namespace"] = json!(NAMESPACE);
    }
    binding
}

/// Where the server puts the name of the node into what it knows of a pod's token.
const NODE: &str = "request.userInfo.extra['authentication.kubernetes.io/node-name']";
/// Of users that are no service account's token, and of old tokens, the server knows nothing more than their name.
const HAS_NODE: &str =
    "(has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra)";

/// What RBAC cannot say: an agent's token writes the TunnelNode of its own node only, the controller's only Services,
/// EndpointSlices, ConfigMaps and connections that a controller has made, and another cluster's none of this one's nodes.
pub fn policies(version: &str) -> Vec<Value> {
    let own = format!("object.metadata.name == {NODE}[0] && object.spec.node == {NODE}[0]");
    // v1beta1 is of servers whose tokens may not name their node.
    let node = match version {
        "v1" => format!("{HAS_NODE} && {own}"),
        _ => format!("!({HAS_NODE}) || ({own})"),
    };
    let (key, value) = MANAGED_BY;
    let label = |of: &str| {
        format!(
            "has({of}.metadata.labels) && '{key}' in {of}.metadata.labels && {of}.metadata.labels['{key}'] == '{value}'"
        )
    };
    let tunnel_nodes = json!([matched(GROUP, &["CREATE", "UPDATE"], &["tunnelnodes"])]);
    let node =
        json!([{ "expression": node, "message": "an agent writes the TunnelNode of its own node only" }]);
    let all = ["CREATE", "UPDATE", "DELETE"];
    let made = json!([
        matched("", &all, &["configmaps", "services"]),
        matched("discovery.k8s.io", &all, &["endpointslices"]),
        matched(GROUP, &all, &["serviceconnections"]),
    ]);
    let labels = json!([
        { "expression": format!("oldObject == null || ({})", label("oldObject")), "message": format!("the controller changes only what has the label {key}={value}") },
        { "expression": format!("object == null || ({})", label("object")), "message": format!("what the controller makes has the label {key}={value}") },
    ]);
    // Who calls a node of its own so that it meets one of this cluster has to say so in `spec`, which is pinned there.
    let own_name = "object.metadata.name == object.spec.cluster + '.' + object.spec.node";
    let member = json!([{ "expression": own_name, "message": "a node of another cluster has the TunnelNode CLUSTER.NODE" }]);
    [
        policy(version, "agent", &tunnel_nodes, &node),
        policy(version, "controller", &made, &labels),
        policy(version, "member", &tunnel_nodes, &member),
    ]
    .concat()
}

fn matched(group: &str, operations: &[&str], resources: &[&str]) -> Value {
    json!({ "apiGroups": [group], "apiVersions": ["*"], "operations": operations, "resources": resources })
}

fn policy(version: &str, role: &str, resources: &Value, validations: &Value) -> [Value; 2] {
    let api = format!("admissionregistration.k8s.io/{version}");
    let (name, labels) = (name(role), labels(role));
    let user = format!("request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{name}'");
    let policy = json!({
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": resources },
            "matchConditions": [{ "name": "by-this-role", "expression": user }],
            "validations": validations,
        },
    });
    let binding = json!({
        "apiVersion": api,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": name, "labels": labels },
        "spec": { "policyName": name, "validationActions": ["Deny"] },
    });
    [policy, binding]
}
