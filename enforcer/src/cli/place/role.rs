//! Objects as a role sees them, over its control socket: to look at only.

use std::path::PathBuf;

use anyhow::bail;
use serde_json::Value;

use super::Place;
use crate::{
    control::{self, Request},
    model::{Kind, ObjectKey},
};

pub struct Role {
    pub socket: PathBuf,
}

impl Role {
    fn ask(&self, kind: Kind, namespace: Option<&str>, name: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let [namespace, name] = [namespace, name].map(|part| part.map(str::to_owned));
        match control::ask(&self.socket, &Request::Get { kind, namespace, name })? {
            Value::Array(objects) => Ok(objects),
            other => Ok(vec![other]),
        }
    }

    fn refuse(&self) -> anyhow::Result<String> {
        bail!(
            "the role at {} only tells what it sees; objects are written with --manifests DIR, or to an API \
             server with --kubeconfig FILE",
            self.socket.display()
        )
    }
}

impl Place for Role {
    fn home(&self) -> &'static str {
        "default"
    }

    fn list(&self, kind: Kind, project: Option<&str>) -> anyhow::Result<Vec<Value>> {
        self.ask(kind, project, None)
    }

    fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Value>> {
        Ok(self.ask(key.kind, Some(&key.namespace), Some(&key.name))?.pop())
    }

    fn create(&self, _document: &Value) -> anyhow::Result<String> {
        self.refuse()
    }

    fn delete(&self, _key: &ObjectKey) -> anyhow::Result<String> {
        self.refuse()
    }

    fn last_condition(&self, _kind: Kind) -> &'static str {
        "Valid"
    }
}
