//! The direction of dependencies, and what the pure layers must not touch.

use super::File;

/// A word that only files below these paths may name in code.
struct Only {
    word: &'static str,
    paths: &'static [&'static str],
    why: &'static str,
}

const ONLY: &[Only] = &[
    Only {
        word: "aya",
        paths: &[
            "enforcer/src/datapath",
            "enforcer/src/lib.rs",
            "enforcer-common/src",
            "enforcer-ebpf/src",
            "tests/",
        ],
        why: "only datapath names aya",
    },
    Only {
        word: "kube",
        paths: &["enforcer/src/source/kubernetes"],
        why: "only source/kubernetes names kube",
    },
    Only {
        word: "print!",
        paths: &["tests/", "xtask/src/test.rs", "enforcer/build.rs"],
        why: "data goes through `cli::out`, the rest is traced",
    },
    Only {
        word: "println!",
        paths: &["tests/", "xtask/src/test.rs", "enforcer/build.rs"],
        why: "data goes through `cli::out`, the rest is traced",
    },
];

/// Layers that are functions from values to values.
const PURE: &[&str] = &["compile", "plan", "resolve"];
const IMPURE: &[&str] = &["async", "SystemTime", "Instant", "fs::", "tokio"];

pub fn check(file: &File) -> Vec<String> {
    let path = file.path.to_string_lossy();
    let mut complaints = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let code = code(line);
        for only in ONLY {
            let allowed = only.paths.iter().any(|prefix| path.starts_with(prefix))
                || path.starts_with("xtask/src/tidy");
            if !allowed && names(code, only.word) {
                complaints.push(file.complain(index + 1, only.why));
            }
        }
        if path.starts_with("enforcer-common/src")
            && (names(code, "enforcer") || names(code, "enforcer_ebpf"))
        {
            complaints.push(file.complain(index + 1, "enforcer-common imports no crate of the workspace"));
        }
        if is_pure(&path) {
            for word in IMPURE.iter().filter(|word| names(code, word)) {
                complaints.push(file.complain(index + 1, &format!("`{word}` in a layer that is pure")));
            }
        }
    }
    complaints
}

fn is_pure(path: &str) -> bool {
    let Some(module) = path.strip_prefix("enforcer/src/") else { return false };
    module.split(['/', '.']).any(|part| PURE.contains(&part))
}

/// The line without its comment. Good enough for code that rustfmt has formatted: `//` in strings is always part of
/// an address.
fn code(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    }
}

/// Whether the word stands there as a path or macro of its own: not as a part of another name, nor in a string.
fn names(code: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '"';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        // A call of that name is no crate.
        let whole = word.ends_with([':', '!']) || !after.is_some_and(|c| part_of_name(c) || c == '(');
        !before.is_some_and(part_of_name) && whole && code[..at].matches('"').count().is_multiple_of(2)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{File, check};

    fn complaints(path: &str, text: &str) -> usize {
        check(&File { path: Path::new(path).into(), text: text.into() }).len()
    }

    #[test]
    fn a_crate_is_named_only_in_its_layer() {
        assert_eq!(complaints("enforcer/src/agent.rs", "use aya::Ebpf;"), 1);
        assert_eq!(complaints("enforcer/src/datapath/kernel.rs", "use aya::Ebpf;"), 0);
        assert_eq!(complaints("enforcer/src/agent.rs", "use layaway::X; // aya::Ebpf"), 0);
    }

    #[test]
    fn pure_layers_have_no_clock_no_files_and_no_async() {
        let text = "async fn a() {\n    std::fs::read(\"x\");\n    SystemTime::now();\n}";
        assert_eq!(complaints("enforcer/src/compile/grants.rs", text), 3, "one for each");
        assert_eq!(complaints("enforcer/src/apply.rs", text), 0);
    }
}
