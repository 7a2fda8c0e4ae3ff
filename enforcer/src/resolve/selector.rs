//! Does a connection mean this pod, and which term says no first.

use std::fmt;

use super::Connection;
use crate::model::{LabelSelector, Labels, Operator, Requirement};

/// The first term of a connection that does not hold for a pod. Terms are tried in the order of the variants, so
/// the later one is, the nearer the connection came.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FailedTerm {
    Cluster {
        found: String,
        expected: String,
    },
    /// The connection is limited to one namespace.
    Namespace {
        found: String,
        expected: String,
    },
    NamespaceLabel(FailedLabel),
    PodLabel(FailedLabel),
}

/// One label that is not as a selector wants it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct FailedLabel {
    pub key: String,
    /// `None`: the label is not there.
    pub found: Option<String>,
    /// In words, `"shop"`, `one of "a", "b"`, `any value`, `no such label`.
    pub expected: String,
}

/// `pod label app: "web", expected "shop"`
impl fmt::Display for FailedTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster { found, expected } => write!(f, "cluster: \"{found}\", expected \"{expected}\""),
            Self::Namespace { found, expected } => {
                write!(f, "namespace: \"{found}\", expected \"{expected}\"")
            }
            Self::NamespaceLabel(label) => write!(f, "namespace label {label}"),
            Self::PodLabel(label) => write!(f, "pod label {label}"),
        }
    }
}

impl fmt::Display for FailedLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => write!(f, "{}: \"{found}\", expected {}", self.key, self.expected),
            None => write!(f, "{}: missing, expected {}", self.key, self.expected),
        }
    }
}

/// Whether the connection's source means a pod with these facts. Kubernetes gives every namespace the label
/// `kubernetes.io/metadata.name`; it holds here even if `namespace_labels` lacks it.
pub fn match_pod(
    connection: &Connection,
    cluster: &str,
    pod_namespace: &str,
    pod_labels: &Labels,
    namespace_labels: &Labels,
) -> Result<(), FailedTerm> {
    let differs = |expected: &Option<String>, found: &str| {
        let expected = expected.as_ref().filter(|expected| *expected != found)?;
        Some((found.to_owned(), expected.clone()))
    };
    if let Some((found, expected)) = differs(&connection.cluster, cluster) {
        return Err(FailedTerm::Cluster { found, expected });
    }
    if let Some((found, expected)) = differs(&connection.only_namespace, pod_namespace) {
        return Err(FailedTerm::Namespace { found, expected });
    }
    if let Some(selector) = &connection.namespace_selector {
        let label = |key: &str| match key {
            NAMESPACE_NAME => Some(pod_namespace),
            _ => namespace_labels.get(key).map(String::as_str),
        };
        failed_label(selector, label).map_or(Ok(()), |failed| Err(FailedTerm::NamespaceLabel(failed)))?;
    }
    let label = |key: &str| pod_labels.get(key).map(String::as_str);
    failed_label(&connection.pod_selector, label).map_or(Ok(()), |failed| Err(FailedTerm::PodLabel(failed)))
}

const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// The first requirement that does not hold; `None` if all do.
fn failed_label<'a>(
    selector: &LabelSelector,
    label: impl Fn(&str) -> Option<&'a str>,
) -> Option<FailedLabel> {
    let fail = |key: &str, expected: String| {
        Some(FailedLabel { key: key.to_owned(), found: label(key).map(str::to_owned), expected })
    };
    for (key, value) in &selector.match_labels {
        if label(key) != Some(value) {
            return fail(key, format!("\"{value}\""));
        }
    }
    selector
        .match_expressions
        .iter()
        .find(|requirement| !holds(requirement, label(&requirement.key)))
        .and_then(|requirement| fail(&requirement.key, expectation(requirement)))
}

/// Kubernetes' semantics: `NotIn` holds for an absent label too.
fn holds(requirement: &Requirement, label: Option<&str>) -> bool {
    let listed = || label.is_some_and(|value| requirement.values.iter().any(|listed| listed == value));
    match requirement.operator {
        Operator::In => listed(),
        Operator::NotIn => !listed(),
        Operator::Exists => label.is_some(),
        Operator::DoesNotExist => label.is_none(),
    }
}

fn expectation(requirement: &Requirement) -> String {
    let values = requirement.values.iter().map(|value| format!("\"{value}\"")).collect::<Vec<_>>().join(", ");
    match requirement.operator {
        Operator::In if requirement.values.len() == 1 => values,
        Operator::In => format!("one of {values}"),
        Operator::NotIn if requirement.values.len() == 1 => format!("another value than {values}"),
        Operator::NotIn => format!("none of {values}"),
        Operator::Exists => "any value".to_owned(),
        Operator::DoesNotExist => "no such label".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Kind, ObjectKey};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
        Requirement {
            key: key.into(),
            operator,
            values: values.iter().map(|value| (*value).into()).collect(),
        }
    }

    fn connection(pod_selector: LabelSelector) -> Connection {
        Connection {
            key: ObjectKey::new(Kind::ServiceConnection, "shop", "cart"),
            created_unix_ns: u64::MAX,
            destination: ObjectKey::new(Kind::Postgres, "shop", "orders"),
            cluster: Some("blue".into()),
            pod_selector,
            namespace_selector: None,
            only_namespace: None,
            ports: Vec::new(),
            valid_until_unix_ns: None,
        }
    }

    fn words(result: &Result<(), FailedTerm>) -> String {
        result.as_ref().err().map_or_else(|| "match".to_owned(), ToString::to_string)
    }

    #[test]
    fn requirements_follow_kubernetes() {
        let table: &[(Requirement, &str, &str, &str)] = &[
            // requirement, label app = "shop", label app = "web", no label
            (
                requirement("app", Operator::In, &["shop"]),
                "match",
                "pod label app: \"web\", expected \"shop\"",
                "pod label app: missing, expected \"shop\"",
            ),
            (
                requirement("app", Operator::NotIn, &["shop", "cart"]),
                "pod label app: \"shop\", expected none of \"shop\", \"cart\"",
                "match",
                "match",
            ),
            (
                requirement("app", Operator::Exists, &[]),
                "match",
                "match",
                "pod label app: missing, expected any value",
            ),
            (
                requirement("app", Operator::DoesNotExist, &[]),
                "pod label app: \"shop\", expected no such label",
                "pod label app: \"web\", expected no such label",
                "match",
            ),
        ];
        for (requirement, shop, web, none) in table {
            let selector =
                LabelSelector { match_expressions: vec![requirement.clone()], ..LabelSelector::default() };
            let connection = connection(selector);
            let said = |pod: &Labels| words(&match_pod(&connection, "blue", "shop", pod, &labels(&[])));
            assert_eq!(
                [said(&labels(&[("app", "shop")])), said(&labels(&[("app", "web")])), said(&labels(&[]))],
                [*shop, *web, *none],
                "{requirement:?}"
            );
        }
    }

    #[test]
    fn an_empty_selector_selects_all() {
        let all = connection(LabelSelector::default());
        let explicit = Connection { namespace_selector: Some(LabelSelector::default()), ..all.clone() };
        for connection in [all, explicit] {
            assert_eq!(match_pod(&connection, "blue", "any", &BTreeMap::new(), &BTreeMap::new()), Ok(()));
        }
    }

    #[test]
    fn terms_fail_in_their_order() {
        let named = |key: &str, value: &str| LabelSelector {
            match_labels: labels(&[(key, value)]),
            match_expressions: Vec::new(),
        };
        let mut connection = connection(named("app", "shop"));
        connection.only_namespace = Some("shop".into());
        connection.namespace_selector = Some(named("kubernetes.io/metadata.name", "shop"));
        let none = labels(&[]);
        let said = |connection: &Connection, cluster, namespace, pod: &Labels| {
            words(&match_pod(connection, cluster, namespace, pod, &none))
        };
        assert_eq!(said(&connection, "red", "blog", &none), "cluster: \"red\", expected \"blue\"");
        assert_eq!(said(&connection, "blue", "blog", &none), "namespace: \"blog\", expected \"shop\"");
        connection.only_namespace = None;
        assert_eq!(
            said(&connection, "blue", "blog", &none),
            "namespace label kubernetes.io/metadata.name: \"blog\", expected \"shop\""
        );
        assert_eq!(said(&connection, "blue", "shop", &none), "pod label app: missing, expected \"shop\"");
        assert_eq!(said(&connection, "blue", "shop", &labels(&[("app", "shop")])), "match");
    }
}
