//! Who asks what of an API server: its audit log, of our roles' accounts alone.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  userGroups: [\"system:serviceaccounts:enforcer-system\"]
- level: None
";

/// One request that was answered.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Request {
    /// RFC 3339, of the answer.
    pub time: String,
    /// `enforcer-agent`
    pub account: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`
    pub verb: String,
    /// `postgreses/status`
    pub resource: String,
    pub name: String,
    pub code: u64,
}

impl Request {
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// For the server's command line; writes the policy.
pub fn flags(dir: &Path) -> Result<[String; 2]> {
    let policy = dir.join("audit.yaml");
    fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
    let log = dir.join("log/audit");
    Ok([format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())])
}

pub fn requests(dir: &Path) -> Result<Vec<Request>> {
    let log = dir.join("log/audit");
    let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
    // The last line may not be whole yet.
    Ok(text.lines().filter_map(|line| request(&serde_json::from_str(line).ok()?)).collect())
}

fn request(event: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let part = object["subresource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
    Some(Request {
        time: text(&event["stageTimestamp"]),
        account: event["user"]["username"].as_str()?.rsplit(':').next()?.to_owned(),
        verb: text(&event["verb"]),
        resource: text(&object["resource"]) + &part,
        name: text(&object["name"]),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
    })
}
