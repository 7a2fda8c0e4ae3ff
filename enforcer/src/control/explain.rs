//! Why a pod can connect to a destination, or why it cannot: every step on the way as a sentence. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::View;
use crate::{
    model::{Kind, Labels, ObjectKey, Spec},
    resolve::{Connection, Destination, match_pod},
    validate::value::protocol_name,
};

/// Who wants to go where.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    pub namespace: String,
    pub pod: String,
    /// `postgres/orders` (in the pod's own namespace), its name in DNS, or one of its addresses.
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it has to be.
    Yes,
    /// This is what it fails at.
    No,
    /// It is not so, and need not be.
    Note,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    pub verdict: Verdict,
    pub text: String,
}

/// The steps up to the first that cannot be passed. `now_unix_ns` judges `validUntil`.
pub fn explain(view: &View, question: &Question, now_unix_ns: u64) -> Vec<Step> {
    let mut steps = Vec::new();
    // What is missing ends the way; what was found so far is worth telling.
    let _end = walk(view, question, now_unix_ns, &mut steps);
    steps
}

fn walk(view: &View, question: &Question, now_unix_ns: u64, steps: &mut Vec<Step>) -> Option<()> {
    let mut say = |verdict, text: String| steps.push(Step { verdict, text });
    let key = ObjectKey::new(Kind::Pod, question.namespace.as_str(), question.pod.as_str());
    let Some((pod, Spec::Pod(_, status))) = view.snapshot.objects.get(&key).map(|pod| (pod, &pod.spec))
    else {
        say(Verdict::No, format!("there is no {key}"));
        return None;
    };
    if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
        say(Verdict::No, format!("{key} has ended ({})", status.phase));
        return None;
    }
    say(Verdict::Yes, format!("{key} is known"));

    let Some(destination) = destination(view, question) else {
        say(Verdict::No, absent(view, question));
        return None;
    };
    say(Verdict::Yes, format!("{} has the name {}", destination.key, destination.fqdn));
    if let Some(port) =
        question.port.filter(|port| !destination.ports.iter().any(|offer| offer.port == *port))
    {
        say(Verdict::No, format!("it offers {}, not {port}", ports(&destination.ports)));
        return None;
    }

    let judged = judge(view, question, destination, &pod.metadata.labels, now_unix_ns);
    let granted = judged.iter().any(|(means, _)| *means);
    for (means, text) in judged {
        let fails = if granted { Verdict::Note } else { Verdict::No };
        say(if means { Verdict::Yes } else { fails }, text);
    }
    for text in refused(view, destination) {
        say(if granted { Verdict::Note } else { Verdict::No }, text);
    }
    if !granted {
        say(Verdict::No, format!("no ServiceConnection lets it reach {}", destination.key));
        return None;
    }
    in_the_kernel(view, question, destination, &mut say);
    Some(())
}

/// Of every connection that leads there whether it means the pod, and in words.
fn judge(
    view: &View,
    question: &Question,
    destination: &Destination,
    labels: &Labels,
    now_unix_ns: u64,
) -> Vec<(bool, String)> {
    let namespace = ObjectKey::new(Kind::Namespace, "", question.namespace.as_str());
    let namespace = view.snapshot.objects.get(&namespace);
    let namespace_labels = namespace.map(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
    let to_it =
        view.resolved.connections.iter().filter(|connection| connection.destination == destination.key);
    to_it
        .map(|connection| {
            // A role that is no agent does not know which cluster is meant.
            let any = connection.cluster.as_deref().unwrap_or_default();
            let cluster = view.role["cluster"].as_str().unwrap_or(any);
            let means = match_pod(connection, cluster, &question.namespace, labels, &namespace_labels);
            let failed = means.err().map(|term| term.to_string());
            let failed = failed.or_else(|| beyond(connection, question.port, now_unix_ns));
            let verdict = match &failed {
                None => "means it".to_owned(),
                Some(term) => format!("does not mean it: {term}"),
            };
            (failed.is_none(), format!("{} {verdict}", connection.key))
        })
        .collect()
}

fn destination<'a>(view: &'a View, question: &Question) -> Option<&'a Destination> {
    let is_meant = |destination: &&Destination| {
        let address = question.to.parse().ok();
        let addresses = [destination.v4.map(std::net::IpAddr::V4), destination.v6.map(std::net::IpAddr::V6)];
        destination.fqdn == question.to.trim_end_matches('.')
            || address.is_some() && addresses.contains(&address)
            || named(&destination.key, question)
    };
    view.resolved.destinations.values().map(|destination| &**destination).find(is_meant)
}

/// Whether `kind/name` means this one.
fn named(key: &ObjectKey, question: &Question) -> bool {
    question.to.split_once('/').is_some_and(|(kind, name)| {
        kind.eq_ignore_ascii_case(key.kind.name()) && name == key.name && question.namespace == key.namespace
    })
}

/// Why there is no such destination.
fn absent(view: &View, question: &Question) -> String {
    let found = view.resolved.conditions.iter().find(|(key, _)| named(key, question));
    match found.and_then(|(key, conditions)| Some((key, conditions.first()?))) {
        Some((key, valid)) if valid.status == "False" => format!("{key} is not valid: {}", valid.message),
        Some((key, _)) => format!("{key} has no address yet"),
        None => format!("nothing here is called {}", question.to),
    }
}

/// What a connection that means the pod does not give it.
fn beyond(connection: &Connection, port: Option<u16>, now_unix_ns: u64) -> Option<String> {
    if connection.valid_until_unix_ns.is_some_and(|until| until <= now_unix_ns) {
        return Some("its validUntil is over".to_owned());
    }
    let port = port.filter(|port| !connection.ports.iter().any(|granted| granted.port == *port))?;
    Some(format!("it is for {}, not {port}", ports(&connection.ports)))
}

fn ports(ports: &[crate::resolve::DestinationPort]) -> String {
    let all: Vec<_> =
        ports.iter().map(|port| format!("{}/{}", protocol_name(port.protocol), port.port)).collect();
    all.join(", ")
}

/// Connections that would lead there if they were valid.
fn refused(view: &View, destination: &Destination) -> Vec<String> {
    let to_it = view.snapshot.objects.iter().filter(|(key, object)| {
        matches!(&object.spec, Spec::ServiceConnection(spec)
            if key.namespace == destination.key.namespace
                && spec.destination.kind == destination.key.kind
                && spec.destination.name == destination.key.name)
    });
    to_it
        .filter_map(|(key, _)| {
            let valid = view.resolved.conditions.get(key)?.first()?;
            (valid.status == "False").then(|| format!("{key} is not valid: {}", valid.message))
        })
        .collect()
}

/// What an agent knows besides: whether the pod is found, what is live, and whether a gateway answers.
fn in_the_kernel(
    view: &View,
    question: &Question,
    destination: &Destination,
    say: &mut impl FnMut(Verdict, String),
) {
    let title = format!("{}/{}", question.namespace, question.pod);
    let pods = view.role["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(pod) = pods.iter().find(|pod| pod["pod"] == title) {
        match pod["state"].as_str().unwrap_or_default() {
            "Guarded" | "HostNetwork" => say(Verdict::Yes, "the node knows where it is".to_owned()),
            state => {
                let why = pod["message"].as_str().unwrap_or("its namespace is not found yet");
                say(Verdict::No, format!("the node says {state}: {why}"));
            }
        }
        let (live, all) = (pod["live"].as_u64().unwrap_or(0), pod["grants"].as_u64().unwrap_or(0));
        let verdict = if live > 0 { Verdict::Yes } else { Verdict::No };
        say(verdict, format!("{live} of {all} grants are live on both ends"));
    } else if view.role["role"] == "agent" {
        say(Verdict::Note, format!("it is not on node {}", view.role["name"].as_str().unwrap_or_default()));
        return;
    }
    let status = view.object_status.get(&destination.key);
    let reachable =
        status.and_then(|status| status.conditions.iter().find(|found| found.kind == "Reachable"));
    match reachable {
        Some(condition) if condition.status == "True" => {
            say(Verdict::Yes, format!("a gateway answers: {}", destination.gateways.join(", ")));
        }
        Some(condition) => say(Verdict::No, condition.message.clone()),
        None => {}
    }
}

/// Whether it can connect, as far as the role knows.
pub fn works(steps: &[Step]) -> bool {
    steps.iter().all(|step| step.verdict != Verdict::No)
}

/// Steps from an answer of the control socket.
pub fn steps(answer: Value) -> serde_json::Result<Vec<Step>> {
    serde_json::from_value(answer)
}

#[cfg(test)]
mod tests;
