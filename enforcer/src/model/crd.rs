//! CustomResourceDefinitions of our kinds, made from their types.
//!
//! The server checks shapes and, where it knows CEL (1.25 and later), what the rules here say. Everything is checked
//! again in `validate` and `resolve`, so that a server which knows none of it lets nothing through.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    ApplicationSpec, DatabaseSpec, InstanceSpec, Kind, KubernetesClusterSpec, ServiceConnectionSpec,
    TunnelGatewaySpec, TunnelNodeSpec,
};

mod columns;
mod status;

/// Group of our kinds.
pub const GROUP: &str = "enforcer.dev";
pub const VERSION: &str = "v1alpha1";

/// Whether rules in CEL are part of the definitions: servers before 1.25 do not know them, and their kubectl refuses
/// what has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rules {
    Cel,
    None,
}

/// One per kind of ours, as `kubectl apply` takes them.
pub fn definitions(rules: Rules) -> Vec<Value> {
    Kind::ALL.iter().copied().filter_map(|kind| Some(definition(kind, &spec(kind)?, rules))).collect()
}

fn definition(kind: Kind, spec: &Value, rules: Rules) -> Value {
    let singular = kind.name().to_ascii_lowercase();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{GROUP}", kind.plural()) },
        "spec": {
            "group": GROUP,
            "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind.name(),
                "listKind": format!("{}List", kind.name()),
                "plural": kind.plural(),
                "singular": singular,
                "shortNames": [kind.short()],
                "categories": ["enforcer"],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns::of(kind),
                "schema": { "openAPIV3Schema": whole(kind, spec, rules) },
            }],
        },
    })
}

fn whole(kind: Kind, spec: &Value, rules: Rules) -> Value {
    let mut properties = json!({ "spec": spec, "status": status::schema(kind) });
    if kind == Kind::TunnelNode {
        properties["report"] = status::report();
    }
    let mut schema = json!({ "type": "object", "description": description(kind), "properties": properties });
    // A KubernetesCluster may be no more than a name.
    if kind != Kind::KubernetesCluster {
        schema["required"] = json!(["spec"]);
    }
    if rules == Rules::Cel {
        add_rules(kind, &mut schema);
    }
    schema
}

fn spec(kind: Kind) -> Option<Value> {
    Some(match kind {
        Kind::ServiceConnection => schema::<ServiceConnectionSpec>(),
        Kind::KeyValueStore | Kind::MySQL | Kind::Postgres => schema::<InstanceSpec>(),
        Kind::MySQLDatabase | Kind::PostgresDatabase => schema::<DatabaseSpec>(),
        Kind::Application => schema::<ApplicationSpec>(),
        Kind::KubernetesCluster => schema::<KubernetesClusterSpec>(),
        Kind::TunnelGateway => schema::<TunnelGatewaySpec>(),
        Kind::TunnelNode => schema::<TunnelNodeSpec>(),
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service | Kind::EndpointSlice => return None,
    })
}

const fn description(kind: Kind) -> &'static str {
    match kind {
        Kind::ServiceConnection => "These pods, and only these, may reach that service.",
        Kind::KeyValueStore => "A key-value store outside the cluster.",
        Kind::MySQL => "A MySQL server outside the cluster.",
        Kind::Postgres => "A PostgreSQL server outside the cluster.",
        Kind::MySQLDatabase => "One database of a MySQL server.",
        Kind::PostgresDatabase => "One database of a PostgreSQL server.",
        Kind::Application => "A workload with references to services: its connections are managed for it.",
        Kind::KubernetesCluster => "A cluster, as the connections of a project call it.",
        Kind::TunnelGateway => "The far end of the tunnels, beside the services; an administrator's.",
        Kind::TunnelNode => "The near end of the tunnels: one per node, made by its agent.",
        Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service | Kind::EndpointSlice => "",
    }
}

/// Adds what CEL says, each rule at the field that it is of: the server names that field to whoever breaks it. A
/// reference that changes would move grants from one service to another.
fn add_rules(kind: Kind, schema: &mut Value) {
    let immutable = json!({ "rule": "self == oldSelf", "message": "references are immutable: delete the object and create it anew" });
    let (references, others): (&[&str], _) = match kind {
        Kind::ServiceConnection => (
            &["/source/kind", "/source/name", "/destination/kind", "/destination/name"],
            Some((
                "/source",
                json!({
                    "rule": "self.kind != 'Application' || (!has(self.podSelector) && !has(self.namespaceSelector))",
                    "message": "an Application has its own podSelector and namespace: no selectors beside it",
                }),
            )),
        ),
        Kind::MySQLDatabase | Kind::PostgresDatabase => (&["/instance"], None),
        _ => (&[], None),
    };
    for (field, rule) in references.iter().map(|field| (*field, immutable.clone())).chain(others) {
        let place = format!("/properties/spec{}", field.replace('/', "/properties/"));
        if let Some(field) = schema.pointer_mut(&place) {
            field["x-kubernetes-validations"] = json!([rule]);
        }
    }
}

/// The type's schema as the API server takes it: structural, nothing referred to, nothing closed.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    structural(&mut schema);
    schema
}

/// Unknown fields are pruned or refused by the server itself; widths of integers are told by their bounds.
fn structural(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    if fields.contains_key("properties") {
        fields.remove("additionalProperties");
    }
    for field in ["title", "nullable", "$schema"] {
        fields.remove(field);
    }
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
    }
    // Only what says something: an empty list is what absence means anyway.
    let says_nothing = |default: &Value| match default {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        other => other.is_null(),
    };
    if fields.get("default").is_some_and(says_nothing) {
        fields.remove("default");
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        // Lines of a comment are one sentence.
        *text = text.replace('\n', " ");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for field in ["items", "additionalProperties"] {
        fields.get_mut(field).into_iter().for_each(structural);
    }
    flatten(fields);
}

/// `allOf` of one schema with a description beside it, or `anyOf` of one and null, is that one with the description.
fn flatten(fields: &mut Map<String, Value>) {
    for wrapper in ["allOf", "anyOf"] {
        let Some(Value::Array(options)) = fields.remove(wrapper) else { continue };
        for mut option in options {
            structural(&mut option);
            let Value::Object(option) = option else { continue };
            for (name, value) in option {
                fields.entry(name).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What apiextensions.k8s.io/v1 calls structural, as far as our schemas can go wrong.
    fn check(path: &str, schema: &Value) {
        for forbidden in ["$ref", "definitions", "oneOf", "anyOf", "allOf", "not", "title", "nullable"] {
            assert!(schema.get(forbidden).is_none(), "{path} has {forbidden}: {schema}");
        }
        assert!(schema["type"].is_string(), "{path} has one type: {schema}");
        let both = schema.get("properties").is_some() && schema.get("additionalProperties").is_some();
        assert!(!both, "{path}");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{path}.{name}"), property);
        }
        if schema["type"] == "array" {
            check(&format!("{path}[]"), &schema["items"]);
        }
    }

    #[test]
    fn every_kind_of_ours_has_a_structural_schema_and_says_what_it_is() {
        let definitions = definitions(Rules::None);
        let ours = Kind::ALL.iter().filter(|kind| kind.is_ours()).count();
        assert_eq!(definitions.len(), ours);
        for definition in definitions {
            let version = &definition["spec"]["versions"][0];
            let schema = &version["schema"]["openAPIV3Schema"];
            let name = definition["metadata"]["name"].as_str().unwrap();
            check(name, schema);
            assert!(!schema["description"].as_str().unwrap().is_empty(), "{name}");
            assert!(version["subresources"]["status"].is_object(), "{name}");
        }
    }

    #[test]
    fn an_old_server_gets_no_rules_and_a_new_one_those_of_references() {
        fn places(path: &str, schema: &Value, found: &mut Vec<String>) {
            if schema.get("x-kubernetes-validations").is_some() {
                found.push(path.to_owned());
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                places(&format!("{path}.{name}"), property, found);
            }
        }
        let rules = |rules| {
            let mut found = Vec::new();
            for definition in definitions(rules) {
                let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
                places(kind, &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
            }
            found
        };
        assert_eq!(rules(Rules::None), Vec::<String>::new());
        assert_eq!(
            rules(Rules::Cel),
            [
                "ServiceConnection.spec.destination.kind",
                "ServiceConnection.spec.destination.name",
                "ServiceConnection.spec.source",
                "ServiceConnection.spec.source.kind",
                "ServiceConnection.spec.source.name",
                "MySQLDatabase.spec.instance",
                "PostgresDatabase.spec.instance",
            ]
        );
    }

    #[test]
    fn a_port_is_a_number_with_bounds_and_a_protocol_one_of_two() {
        let schema = schema::<InstanceSpec>();
        let port = &schema["properties"]["ports"]["items"];
        assert_eq!(port["properties"]["port"]["maximum"], 65_535);
        assert_eq!(port["properties"]["protocol"]["enum"], json!(["TCP", "UDP"]));
        assert_eq!(port["properties"]["protocol"]["default"], "TCP");
        assert_eq!(port["required"], json!(["port"]));
    }
}
