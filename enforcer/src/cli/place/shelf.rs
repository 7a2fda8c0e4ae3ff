//! A place for tests of commands: objects in memory.

use std::cell::RefCell;

use serde_json::{Value, json};

use super::{Place, key_of};
use crate::model::{Kind, ObjectKey};

#[derive(Default)]
pub struct Shelf {
    pub objects: RefCell<Vec<Value>>,
    pub project: Option<String>,
}

impl Shelf {
    /// Postgreses of these projects and names.
    pub fn of(names: &[(&str, &str)]) -> Self {
        let objects = names.iter().map(|(project, name)| {
            json!({ "kind": "Postgres", "metadata": { "namespace": project, "name": name } })
        });
        Self { objects: RefCell::new(objects.collect()), project: None }
    }
}

impl Place for Shelf {
    fn home(&self) -> &'static str {
        "default"
    }

    fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    fn list(&self, kind: Kind, project: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let objects = self.objects.borrow();
        let wanted = objects.iter().filter(|object| {
            object["kind"] == kind.name()
                && project.is_none_or(|project| object["metadata"]["namespace"] == project)
        });
        Ok(wanted.cloned().collect())
    }

    fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Value>> {
        let objects = self.objects.borrow();
        Ok(objects.iter().find(|object| key_of(object).is_ok_and(|found| found == *key)).cloned())
    }

    fn create(&self, document: &Value) -> anyhow::Result<String> {
        self.objects.borrow_mut().push(document.clone());
        Ok(String::new())
    }

    fn delete(&self, key: &ObjectKey) -> anyhow::Result<String> {
        self.objects.borrow_mut().retain(|object| key_of(object).is_ok_and(|found| found != *key));
        Ok(String::new())
    }

    fn last_condition(&self, _kind: Kind) -> &'static str {
        "Ready"
    }
}
