//! What is checked in is what is made, and what the chart renders is what `enforcer install` prints.

use serde::Deserialize as _;

use super::*;
use crate::{
    install::{manifests, served::KubeVersion, values::read},
    model::crd::{self, Rules},
};

fn checked_in(format: &str) -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(format);
    let mut files = Files::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(&root).unwrap().into(), text);
            }
        }
    }
    files
}

#[test]
fn what_is_checked_in_is_what_is_made() {
    for (format, folder) in [(Format::Kustomize, "kustomize"), (Format::Helm, "helm")] {
        let (made, there) = (files(format).unwrap(), checked_in(folder));
        assert_eq!(there.keys().collect::<Vec<_>>(), made.keys().collect::<Vec<_>>(), "cargo xtask deploy");
        for (path, text) in &made {
            assert_eq!(&there[path], text, "{}: cargo xtask deploy", path.display());
        }
    }
}

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).unwrap()).filter(|value| !value.is_null()).collect()
}

/// By kind and name, as the order of files is the tools' own.
fn by_name(documents: Vec<Value>) -> BTreeMap<String, Value> {
    let key = |document: &Value| format!("{} {}", document["kind"], document["metadata"]["name"]);
    documents.into_iter().map(|document| (key(&document), document)).collect()
}

#[test]
fn the_base_is_an_install_with_defaults() {
    let files = checked_in("kustomize");
    let list = documents(&files[Path::new("kustomization.yaml")]).remove(0);
    let resources =
        list["resources"].as_array().unwrap().iter().map(|name| Path::new(name.as_str().unwrap()));
    let all = resources.flat_map(|path| documents(&files[path])).collect();
    assert_eq!(by_name(all), by_name(manifests(&Values::default(), &Served::newest()).documents));
}

#[test]
fn the_chart_renders_what_an_install_prints() {
    let everything = [
        "gateway.enabled=true",
        "gateway.port=4500",
        "dns.enabled=true",
        "dns.clusterIP=10.96.0.10",
        "clusterName=a \"b\": #c",
        "agent.extraArgs=[--tunnel, kernel]",
        "controller.replicas=3",
        "image.pullSecrets=[{name: pull}]",
        "agent.nodeSelector={kubernetes.io/os: linux}",
    ];
    for (set, minor) in [
        (&[][..], 30),
        (&[][..], 20),
        (&everything[..], 30),
        (&["tunnel.enabled=false"][..], 27),
        (&["connectionsKubeconfigSecret=there"][..], 30),
    ] {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let values = read(&[] as &[&str], &set).unwrap();
        let served = Served::by(KubeVersion { minor });
        let rendered = rendered(&checked_in("helm"), &values, &served);
        assert_eq!(by_name(rendered), by_name(manifests(&values, &served).documents), "{set:?} on 1.{minor}");
    }
}

#[test]
fn the_charts_values_are_the_defaults_and_every_one_is_described() {
    let files = checked_in("helm");
    let text = &files[Path::new("values.yaml")];
    assert_eq!(documents(text), [json!(Values::default())]);
    assert!(
        text.contains("# What ServiceConnections call this cluster.\nclusterName: \"my-cluster\"\n"),
        "{text}"
    );
}

/// As Helm does it, for the templates that the chart has.
fn rendered(files: &Files, values: &Values, served: &Served) -> Vec<Value> {
    let world = World { values: json!(values), served };
    let mut all = Vec::new();
    for (path, text) in files {
        if path.starts_with("crds") {
            // An old server drops what it does not know.
            let old = served.rules() == Rules::None;
            let crds = if old { crd::definitions(Rules::None) } else { documents(text) };
            all.extend(crds);
        } else if path.starts_with("templates") {
            all.extend(documents(&world.render(text)));
        }
    }
    all
}

struct World<'a> {
    values: Value,
    served: &'a Served,
}

impl World<'_> {
    fn render(&self, template: &str) -> String {
        let mut text = String::new();
        let mut conditions = Vec::new();
        for line in template.lines() {
            let action = line.strip_prefix("{{- ").and_then(|rest| rest.strip_suffix(" }}"));
            match action.map(|action| action.split_once(' ').unwrap_or((action, ""))) {
                Some(("if", condition)) => {
                    let value = self.evaluate(condition);
                    conditions.push(value != json!(false) && value != json!(""));
                }
                Some(("end", "")) => assert!(conditions.pop().is_some(), "{template}"),
                Some((other, _)) => panic!("{other} is not known here"),
                None if conditions.iter().all(|holds| *holds) => text += &(self.line(line) + "\n"),
                None => {}
            }
        }
        text
    }

    fn line(&self, line: &str) -> String {
        let Some((before, rest)) = line.split_once("{{ ") else { return line.to_owned() };
        let (expression, after) = rest.split_once(" | toJson }}").unwrap();
        assert!(!after.contains("{{"), "{line}");
        format!("{before}{}{after}", self.evaluate(expression))
    }

    fn evaluate(&self, expression: &str) -> Value {
        let words = words(expression);
        let arguments = || words[1..].iter().map(|word| self.evaluate(word)).collect::<Vec<_>>();
        let list = |value: &Value| value.as_array().unwrap().clone();
        match (words[0].as_str(), words.len()) {
            (".Capabilities.APIVersions.Has", 2) => json!(self.served.has(arguments()[0].as_str().unwrap())),
            ("printf", _) => {
                let arguments = arguments();
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let format = arguments[0].as_str().unwrap().to_owned();
                arguments[1..].iter().fold(format, |all, value| all.replacen("%v", &text(value), 1)).into()
            }
            ("dict", 3) => {
                let [key, value] = [1, 2].map(|word| self.evaluate(&words[word]));
                json!({ key.as_str().unwrap(): value })
            }
            ("semverCompare", 3) => {
                // ">=1.30-0": that version, or a candidate of it.
                let since = arguments()[0].as_str().unwrap().strip_prefix(">=").map(str::to_owned).unwrap();
                let since: KubeVersion = since.strip_suffix("-0").unwrap().parse().unwrap();
                json!(self.served.version >= since)
            }
            (".Capabilities.KubeVersion.Version", 1) => json!(self.served.version.to_string()),
            ("not", 2) => json!([json!(false), json!("")].contains(&arguments()[0])),
            ("list", _) => Value::Array(arguments()),
            ("concat", 3) => [list(&arguments()[0]), list(&arguments()[1])].concat().into(),
            ("ternary", 4) => {
                let arguments = arguments();
                arguments[usize::from(arguments[2] != json!(true))].clone()
            }
            (word, 1) if word.starts_with('"') => serde_json::from_str(word).unwrap(),
            (word, 1) if word.starts_with('(') => self.evaluate(&word[1..word.len() - 1]),
            (word, 1) if word.starts_with(".Values.") => {
                let keys = word.split('.').skip(2);
                keys.fold(self.values.clone(), |value, key| {
                    value.get(key).unwrap_or_else(|| panic!("{word}")).clone()
                })
            }
            (word, count) => panic!("{word} with {count} words in {expression}"),
        }
    }
}

/// Words of an expression; what is in parentheses or quotes is one.
fn words(expression: &str) -> Vec<String> {
    let (mut words, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in expression.chars() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            ' ' if !quoted && depth == 0 => {
                words.push(String::new());
                continue;
            }
            _ => {}
        }
        words.last_mut().unwrap().push(c);
    }
    words
}
