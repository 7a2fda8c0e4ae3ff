//! Where objects are: a folder of YAML, a role's control socket, or an API server. Commands know no more than this of
//! them.

mod api;
mod choice;
mod folder;
mod role;
#[cfg(test)]
pub mod shelf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{input, show::text};
use crate::model::{Kind, ObjectKey};

pub use choice::PlaceArgs;

/// Objects are documents as `get -o yaml` shows them, with their status.
pub trait Place {
    /// The project that new objects go to where nobody says another one.
    fn home(&self) -> &str;

    /// The project that is meant where nobody says one; `None`: all of them.
    fn project(&self) -> Option<&str> {
        None
    }

    /// In the order of their names. `project` is `None` for all, and for kinds that have none.
    fn list(&self, kind: Kind, project: Option<&str>) -> anyhow::Result<Vec<Value>>;

    fn get(&self, key: &ObjectKey) -> anyhow::Result<Option<Value>>;

    /// Writes a new object; one that exists is an error. Returns what is to be said behind `created`, where to find it.
    fn create(&self, document: &Value) -> anyhow::Result<String>;

    /// What a server would make of a new object; nothing is kept.
    fn try_create(&self, _document: &Value) -> anyhow::Result<Value> {
        bail!("--dry-run=server: there is no API server here, expected --dry-run")
    }

    /// Whether a server would delete it; nothing is deleted.
    fn try_delete(&self, _key: &ObjectKey) -> anyhow::Result<()> {
        bail!("--dry-run=server: there is no API server here, expected --dry-run")
    }

    /// Returns what is to be said behind `deleted`.
    fn delete(&self, key: &ObjectKey) -> anyhow::Result<String>;

    /// The condition that says of an object that it works.
    fn last_condition(&self, kind: Kind) -> &'static str;

    /// What was told of an object: Events as Kubernetes has them.
    fn events(&self, _object: &Value) -> anyhow::Result<Vec<Value>> {
        Ok(Vec::new())
    }

    /// Why a deleted object is not gone for good yet.
    fn remains(&self, key: &ObjectKey) -> anyhow::Result<Option<String>> {
        Ok(self.get(key)?.map(|_| "it is still there".to_owned()))
    }

    /// What a person has to know about objects of these kinds that are not shown.
    fn notes(&self, _kinds: &[Kind]) -> Vec<String> {
        Vec::new()
    }
}

/// What of a change is done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum DryRun {
    /// All of it
    #[default]
    None,
    /// Nothing is asked of anybody
    Client,
    /// The server says what it would do
    Server,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Scope {
    /// Only this project (namespace) [default: that of the kubeconfig's context; in a folder and at a role, all]
    #[arg(short = 'n', long = "project", alias = "namespace", value_name = "NAME", add = super::completions::names_of(Kind::Namespace))]
    pub project: Option<String>,
    /// All projects, with a column that names them
    #[arg(
        short = 'A',
        long = "all",
        visible_alias = "all-projects",
        alias = "all-namespaces",
        conflicts_with = "project"
    )]
    pub all: bool,
}

impl Scope {
    /// `None`: all projects, or a kind without.
    pub fn of<'a>(&'a self, kind: Kind, place: &'a dyn Place) -> Option<&'a str> {
        if !kind.namespaced() || self.all {
            return None;
        }
        self.project.as_deref().or_else(|| place.project())
    }
}

/// The objects of this name: one, or several where all projects are looked at. The inner error says that there is none,
/// and what may have been meant.
pub fn find(
    place: &dyn Place,
    kind: Kind,
    name: &str,
    scope: &Scope,
) -> anyhow::Result<Result<Vec<Value>, String>> {
    let project = scope.of(kind, place);
    let found: Vec<Value> = if kind.namespaced() && project.is_none() {
        place.list(kind, None)?.into_iter().filter(|object| object["metadata"]["name"] == name).collect()
    } else {
        place.get(&ObjectKey::new(kind, project.unwrap_or_default(), name))?.into_iter().collect()
    };
    if found.is_empty() {
        return Ok(Err(absence(place, &ObjectKey::new(kind, project.unwrap_or_default(), name))));
    }
    Ok(Ok(found))
}

/// That there is no such object, and which one may have been meant. Key: without a project where all were looked at.
pub fn absence(place: &dyn Place, key: &ObjectKey) -> String {
    let none = format!("there is no {key}");
    let here = Some(key.namespace.as_str()).filter(|project| !project.is_empty());
    // Whoever may see one project may not be allowed to see all.
    let others = place.list(key.kind, None).or_else(|_| place.list(key.kind, here)).unwrap_or_default();
    let part = |object: &Value, field: &str| text(&object["metadata"][field]);
    let elsewhere = others.iter().find(|object| part(object, "name") == key.name);
    if let Some(object) = elsewhere {
        return format!("{none}: project {} has one (-n)", part(object, "namespace"));
    }
    let of = |same: bool| {
        let chosen = others
            .iter()
            .filter(|object| here.is_none_or(|here| (part(object, "namespace") == here) == same));
        let names: Vec<String> = chosen.map(|object| part(object, "name")).collect();
        input::did_you_mean(&key.name, names.iter().map(String::as_str))
    };
    let near = of(true);
    if near.is_empty() && here.is_some() {
        let far = of(false);
        let far = if far.is_empty() { far } else { far.replace('?', " of another project?") };
        return none + &far;
    }
    none + &near
}

/// What the document is called.
pub fn key_of(document: &Value) -> anyhow::Result<ObjectKey> {
    let kind: Kind = text(&document["kind"]).parse().context("not an object")?;
    let metadata = &document["metadata"];
    Ok(ObjectKey::new(kind, text(&metadata["namespace"]), text(&metadata["name"])))
}

#[cfg(test)]
mod tests {
    use super::{shelf::Shelf, *};

    fn said(shelf: &Shelf, kind: Kind, name: &str, project: Option<&str>) -> Result<usize, String> {
        let scope = Scope { project: project.map(str::to_owned), all: false };
        find(shelf, kind, name, &scope).unwrap().map(|found| found.len())
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_the_one_that_is() {
        let shelf = Shelf::of(&[("shop", "orders"), ("blog", "posts"), ("blog", "orders2")]);
        let table = [
            (Some("shop"), "orders", Ok(1)),
            (Some("shop"), "ordres", Err("there is no Postgres shop/ordres: did you mean orders?")),
            (Some("shop"), "posts", Err("there is no Postgres shop/posts: project blog has one (-n)")),
            (
                Some("shop"),
                "post",
                Err("there is no Postgres shop/post: did you mean posts of another project?"),
            ),
            (Some("shop"), "zebra", Err("there is no Postgres shop/zebra")),
            (None, "orders", Ok(1)),
            (None, "ordrs", Err("there is no Postgres ordrs: did you mean orders?")),
        ];
        for (project, name, expected) in table {
            assert_eq!(
                said(&shelf, Kind::Postgres, name, project),
                expected.map_err(str::to_owned),
                "{name}"
            );
        }
    }

    #[test]
    fn where_nobody_says_a_project_the_places_own_is_meant() {
        let mut shelf = Shelf::of(&[("shop", "orders"), ("blog", "orders")]);
        assert_eq!(said(&shelf, Kind::Postgres, "orders", None), Ok(2));
        shelf.project = Some("shop".to_owned());
        assert_eq!(said(&shelf, Kind::Postgres, "orders", None), Ok(1));
    }
}
