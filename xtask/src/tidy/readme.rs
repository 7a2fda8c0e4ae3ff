//! The README names every command that there is, and no test that there is not.

use anyhow::{Context, Result};

use super::File;

/// Where the subcommands are declared, and how the README writes them.
const COMMANDS: &[(&str, &str)] =
    &[("enforcer/src/cli.rs", "enforcer"), ("xtask/src/main.rs", "cargo xtask")];

pub fn check(files: &[File]) -> Result<Vec<String>> {
    let find = |path: &str| files.iter().find(|file| file.path.to_string_lossy() == path);
    let Some(readme) = find("README.md") else { return Ok(vec!["README.md: there is none".into()]) };
    let mut complaints = Vec::new();
    for (path, program) in COMMANDS {
        let file = find(path).with_context(|| format!("{path} is not there"))?;
        for command in subcommands(&file.text) {
            let written = format!("{program} {command}");
            if !readme.text.contains(&written) {
                complaints.push(readme.complain(1, &format!("does not mention `{written}` of {path}")));
            }
        }
    }
    for (number, line) in readme.text.lines().enumerate() {
        for test in tests(line).filter(|test| !is_test(files, test)) {
            complaints.push(readme.complain(number + 1, &format!("there is no test {test}")));
        }
    }
    Ok(complaints)
}

/// Names of tests in a line: more than three words in code, joined as Rust joins them.
fn tests(line: &str) -> impl Iterator<Item = &str> {
    let is_name =
        |code: &&str| code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    line.split('`').skip(1).step_by(2).filter(is_name).filter(|code| code.matches('_').count() > 3)
}

fn is_test(files: &[File], name: &str) -> bool {
    let declaration = format!("fn {name}()");
    files.iter().any(|file| file.is_rust() && file.text.contains(&declaration))
}

/// Names of the variants of the enums that derive `Subcommand`, as clap writes them.
fn subcommands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !(line.starts_with("#[derive(") && line.contains("Subcommand")) {
            continue;
        }
        let body =
            lines.by_ref().skip_while(|line| !line.contains("enum ")).skip(1).take_while(|line| *line != "}");
        for line in body {
            let Some(variant) =
                line.strip_prefix("    ").filter(|l| l.starts_with(|c: char| c.is_ascii_uppercase()))
            else {
                continue;
            };
            let name: String = variant.chars().take_while(|c| c.is_alphanumeric()).collect();
            found.push(kebab(&name));
        }
    }
    found
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(c.to_ascii_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::{subcommands, tests};

    #[test]
    fn variants_are_named_as_clap_names_them() {
        let text =
            "#[derive(Subcommand)]\nenum Task {\n    /// Docs\n    Setup(setup::Args),\n    CleanLab,\n}\n";
        assert_eq!(subcommands(text), ["setup", "clean-lab"]);
    }

    #[test]
    fn names_of_tests_are_told_from_other_code() {
        let line = "| a pod | `no_way_out_of_the_node_is_in_clear`, `gw_from_tunnel`, `enforcer agent` |";
        assert_eq!(tests(line).collect::<Vec<_>>(), ["no_way_out_of_the_node_is_in_clear"]);
    }
}
