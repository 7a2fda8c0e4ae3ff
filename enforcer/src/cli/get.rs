//! `get`: objects of one kind, or single ones, as a table or whole.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    Failure, input, out,
    place::{Place, PlaceArgs, Scope, find},
    show,
};
use crate::model::Kind;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    /// The table with more columns
    Wide,
    Yaml,
    Json,
    /// KIND/NAME alone
    Name,
}

#[derive(Args, Debug)]
pub struct GetArgs {
    /// KIND, KIND NAME… or KIND/NAME…; kinds in any case, plural or short (sc, kvs, pg, my, app, tgw, tn)
    #[arg(required = true, value_name = "KIND [NAME]…", add = super::completions::objects())]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    place: PlaceArgs,
}

pub fn run(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let targets = input::targets(&args.what).map_err(Failure::usage)?;
    let place = args.place.choose()?;
    let mut missing = false;
    let mut found: Vec<(Kind, Vec<Value>)> = Vec::new();
    for target in &targets {
        let objects = match &target.name {
            None => place.list(target.kind, args.scope.of(target.kind, &*place))?,
            Some(name) => find(&*place, target.kind, name, &args.scope)?.unwrap_or_else(|absence| {
                out::note(&format!("enforcer: {absence}"));
                missing = true;
                Vec::new()
            }),
        };
        match found.last_mut() {
            Some((kind, before)) if *kind == target.kind => before.extend(objects),
            _ => found.push((target.kind, objects)),
        }
    }
    for note in place.notes(&targets.iter().map(|target| target.kind).collect::<Vec<_>>()) {
        out::note(&format!("note: {note}"));
    }
    let is_empty = found.iter().all(|(_, objects)| objects.is_empty());
    match args.output {
        // What was asked for by name and is not there is no empty list.
        _ if is_empty && missing => {}
        Format::Table | Format::Wide if is_empty => {
            out::note(&nothing(&args.scope, targets.first().map(|target| target.kind), &*place));
        }
        format => {
            let named = targets.iter().all(|target| target.name.is_some());
            out::data(&render(&found, named, args.scope.all, format)?)?;
        }
    }
    Ok(if missing { Failure::NotFound.code() } else { ExitCode::SUCCESS })
}

fn nothing(scope: &Scope, kind: Option<Kind>, place: &dyn Place) -> String {
    let Some(kind) = kind else { return String::new() };
    match scope.of(kind, place) {
        Some(project) => format!("there is no {kind} in project {project}"),
        None => format!("there is no {kind}"),
    }
}

/// `named`: they were asked for by name, so that a single one stands for itself.
fn render(
    found: &[(Kind, Vec<Value>)],
    named: bool,
    projects: bool,
    format: Format,
) -> anyhow::Result<String> {
    let all: Vec<&Value> = found.iter().flat_map(|(_, objects)| objects).collect();
    let whole = match all.as_slice() {
        [only] if named => (*only).clone(),
        _ => json!({ "apiVersion": "v1", "kind": "List", "items": all }),
    };
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(&whole)? + "\n",
        Format::Yaml => serde_norway::to_string(&whole)?,
        Format::Name => all.iter().map(|object| show::title(object) + "\n").collect(),
        Format::Table | Format::Wide => {
            let tables = found
                .iter()
                .filter(|(_, objects)| !objects.is_empty())
                .map(|(kind, objects)| show::as_table(*kind, objects, projects, format == Format::Wide));
            tables.collect::<Vec<_>>().join("\n")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pg(name: &str) -> Value {
        json!({ "apiVersion": "enforcer.dev/v1alpha1", "kind": "Postgres", "metadata": { "name": name } })
    }

    #[test]
    fn one_object_stands_for_itself_and_several_are_a_list() {
        let one = [(Kind::Postgres, vec![pg("a")])];
        let two = [(Kind::Postgres, vec![pg("a"), pg("b")])];
        let json = |found: &[(Kind, Vec<Value>)], named| {
            serde_json::from_str::<Value>(&render(found, named, false, Format::Json).unwrap()).unwrap()
        };
        let list = |items: Value| json!({ "apiVersion": "v1", "kind": "List", "items": items });
        assert_eq!(json(&one, true), pg("a"));
        assert_eq!(json(&one, false), list(json!([pg("a")])));
        assert_eq!(json(&two, true), list(json!([pg("a"), pg("b")])));
        assert_eq!(
            render(&two, false, false, Format::Name).unwrap(),
            "postgres.enforcer.dev/a\npostgres.enforcer.dev/b\n"
        );
    }

    #[test]
    fn each_kind_has_a_table_of_its_own() {
        let found =
            [(Kind::Postgres, vec![pg("a")]), (Kind::MySQL, Vec::new()), (Kind::Namespace, vec![pg("n")])];
        assert_eq!(
            render(&found, true, false, Format::Table).unwrap(),
            "NAME   GATEWAYS   ADDRESSES   DNS   READY\na\n\nNAME\nn\n"
        );
    }
}
