//! What a server of custom resources asks of the server that it stands beside: who is it, may they, which policies are
//! there. Everybody is who they say they are and may do everything, so that the policies alone decide.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Longer than any test, so that nobody asks again.
const WATCH: Duration = Duration::from_mins(10);
/// What Kubernetes calls the node of a pod's token.
const NODE: &str = "authentication.kubernetes.io/node-name";
/// What is listed by its own kind, as whoever reads policies wants it.
const KINDS: &[(&str, &str)] = &[
    ("namespaces", "Namespace"),
    ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
    ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
];

/// Listens for as long as this process lives. `documents` are what is listed, each by its kind.
pub fn serve(at: SocketAddr, documents: &[Value]) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    let lists = lists(documents);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let lists = lists.clone();
            thread::spawn(move || answer(client, &lists));
        }
    });
    Ok(())
}

/// By the last part of the path. The server's defaults are filled in, as whoever reads policies expects.
fn lists(documents: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (number, document) in documents.iter().enumerate() {
        let mut document = document.clone();
        document["metadata"]["uid"] = number.to_string().into();
        document["metadata"]["resourceVersion"] = "1".into();
        document["metadata"]["generation"] = 1.into();
        let Some((plural, _)) = KINDS.iter().find(|(_, kind)| document["kind"] == *kind) else { continue };
        if let Some(of) = document["spec"]["matchConstraints"].as_object_mut() {
            for (field, default) in [
                ("namespaceSelector", json!({})),
                ("objectSelector", json!({})),
                ("matchPolicy", json!("Equivalent")),
            ] {
                of.entry(field).or_insert(default);
            }
            for rule in of["resourceRules"].as_array_mut().into_iter().flatten() {
                rule["scope"] = "*".into();
            }
        }
        lists.entry((*plural).to_owned()).or_default().push(document);
    }
    lists
}

/// One request, then the connection ends.
fn answer(mut client: TcpStream, lists: &BTreeMap<String, Vec<Value>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if query.contains("watch=true") && !query.contains("sendInitialEvents=true") {
        client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
            .ok()?;
        thread::sleep(WATCH);
        return Some(());
    }
    let asked = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, said) = said(path, query, asked, lists);
    let said = said.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        said.len()
    );
    client.write_all(head.as_bytes()).ok()?;
    client.write_all(said.as_bytes()).ok()
}

fn said(
    path: &str,
    query: &str,
    mut asked: Value,
    lists: &BTreeMap<String, Vec<Value>>,
) -> (&'static str, Value) {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        // A watch that begins with a list: an older server does not know it, and is asked for a list.
        _ if query.contains("sendInitialEvents=true") => (
            "422 Unprocessable Entity",
            json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422 }),
        ),
        "tokenreviews" => {
            let token = asked["spec"]["token"].as_str().unwrap_or_default().to_owned();
            asked["status"] = json!({ "authenticated": true, "user": user(&token) });
            ("201 Created", asked)
        }
        "subjectaccessreviews" => {
            asked["status"] = json!({ "allowed": true });
            ("201 Created", asked)
        }
        "extension-apiserver-authentication" => (
            "200 OK",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": last, "namespace": "kube-system", "resourceVersion": "1" } }),
        ),
        _ => {
            let version = path.trim_matches('/').split('/').skip(1).take(2).collect::<Vec<_>>();
            let version = if path.starts_with("/apis/") { version.join("/") } else { "v1".to_owned() };
            let kind = KINDS.iter().find(|(plural, _)| *plural == last).map_or("", |(_, kind)| kind);
            let items = lists.get(last).cloned().unwrap_or_default();
            (
                "200 OK",
                json!({ "apiVersion": version, "kind": format!("{kind}List"), "metadata": { "resourceVersion": "1" }, "items": items }),
            )
        }
    }
}

/// Tokens are `USER`, or `USER@NODE` where a pod's names its node.
fn user(token: &str) -> Value {
    let (name, node) = token.split_once('@').map_or((token, None), |(name, node)| (name, Some(node)));
    let mut user = json!({ "username": name, "uid": "1", "groups": ["system:authenticated"] });
    if let Some(node) = node {
        user["extra"] = json!({ NODE: [node] });
    }
    user
}
