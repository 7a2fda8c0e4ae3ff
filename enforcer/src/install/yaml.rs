//! Documents as YAML that a person can read: capabilities have their reasons beside them.

use serde_json::Value;

use super::capabilities::{AGENT, GATEWAY, TUNNEL};

pub fn document(document: &Value) -> Result<String, serde_norway::Error> {
    let role = document["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap_or_default();
    let named = match role {
        "agent" => AGENT,
        "gateway" => GATEWAY,
        _ => TUNNEL,
    };
    let text = serde_norway::to_string(document)?;
    let with_reason = |line: &str| {
        let name = line.trim_start().strip_prefix("- ").unwrap_or_default();
        match named.iter().find(|(capability, _)| *capability == name) {
            Some((_, reason)) => format!("{line} # {reason}\n"),
            None => format!("{line}\n"),
        }
    };
    Ok(text.lines().map(with_reason).collect())
}
