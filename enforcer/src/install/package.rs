//! The same documents as a kustomize base and as a Helm chart: a folder of files.
//!
//! The base is what `enforcer install` prints for the newest server; other values are the patches of whoever uses it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use schemars::schema_for;
use serde_json::{Value, json};

use super::{Only, Part, fill::Fill, parts, served::Served, values::Values, yaml};

/// How the documents are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    Kustomize,
    Helm,
}

/// Path in the folder, and text.
pub type Files = BTreeMap<PathBuf, String>;

/// Every file of a package; pure.
pub fn files(format: Format) -> anyhow::Result<Files> {
    match format {
        Format::Kustomize => kustomize(),
        Format::Helm => helm(),
    }
}

/// Writes them below a folder.
pub fn write(format: Format, folder: &Path) -> anyhow::Result<()> {
    for (path, text) in files(format)? {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

const MADE: &str = "# Made by `cargo xtask deploy` from enforcer/src/install; changes belong there.\n";

fn stream(documents: &[Value]) -> anyhow::Result<String> {
    let texts: Result<Vec<String>, _> = documents.iter().map(yaml::document).collect();
    Ok(texts?.join("---\n"))
}

fn kustomize() -> anyhow::Result<Files> {
    let (values, served) = (Values::default(), Served::newest());
    let fill = Fill::values(&values, &served);
    let wanted = |part: &Part| part.is_there(&fill, &served);
    let mut files = Files::new();
    let mut resources = Vec::new();
    for part in parts(&fill).into_iter().filter(wanted) {
        let name = format!("{}.yaml", part.file);
        files.insert(name.clone().into(), format!("{MADE}{}", stream(&part.documents)?));
        resources.push(name);
    }
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    files.insert("kustomization.yaml".into(), format!("{MADE}{}", serde_norway::to_string(&kustomization)?));
    Ok(files)
}

fn helm() -> anyhow::Result<Files> {
    let fill = Fill::template();
    let mut files = Files::new();
    for part in parts(&fill) {
        let text = fill.expand(&stream(&part.documents)?);
        let condition = match part.only {
            Only::Always => None,
            Only::With(key) => Some(format!(".Values.{key}")),
            Only::Without(key) => Some(format!("not .Values.{key}")),
            Only::Served(api) => Some(format!(".Capabilities.APIVersions.Has {api:?}")),
        };
        let text = match condition {
            Some(condition) => format!("{MADE}{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"),
            None => format!("{MADE}{text}"),
        };
        // Helm applies those first, and leaves them when it uninstalls: with them every object would go.
        let folder = if part.file == "crds" { "crds" } else { "templates" };
        files.insert(Path::new(folder).join(format!("{}.yaml", part.file)), text);
    }
    let chart = json!({
        "apiVersion": "v2",
        "name": "enforcer",
        "description": env!("CARGO_PKG_DESCRIPTION"),
        "version": env!("CARGO_PKG_VERSION"),
        "appVersion": env!("CARGO_PKG_VERSION"),
        "kubeVersion": ">=1.20.0-0",
    });
    files.insert("Chart.yaml".into(), format!("{MADE}{}", serde_norway::to_string(&chart)?));
    files.insert("values.yaml".into(), format!("{MADE}{}", documented_values()?));
    Ok(files)
}

/// The defaults, with what each value is above it.
pub fn documented_values() -> anyhow::Result<String> {
    let schema = schema_for!(Values).to_value();
    let mut text = String::new();
    describe(&json!(Values::default()), &schema, &schema, 0, &mut text)?;
    Ok(text)
}

fn describe(
    value: &Value,
    schema: &Value,
    root: &Value,
    depth: usize,
    text: &mut String,
) -> anyhow::Result<()> {
    let indent = "  ".repeat(depth);
    let inside = |schema: &'_ Value| match schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        Some(name) => root["$defs"][name].clone(),
        None => schema.clone(),
    };
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = &schema["properties"][name];
        let inner = inside(property);
        let said = [property, &inner].into_iter().find_map(|schema| schema["description"].as_str());
        for line in said.into_iter().flat_map(str::lines) {
            writeln!(text, "{indent}# {line}")?;
        }
        if value.is_object() && inner.get("properties").is_some() {
            writeln!(text, "{indent}{name}:")?;
            describe(value, &inner, root, depth + 1, text)?;
        } else {
            // JSON is YAML.
            writeln!(text, "{indent}{name}: {value}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
