//! Files and functions that one can read: how they open, how long they are, where they lie.

use super::File;

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;
const VAGUE: &[&str] = &["common.rs", "helpers.rs", "misc.rs", "util.rs", "utils.rs"];

pub fn check(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    if !file.text.starts_with("//!") {
        complaints.push(file.complain(1, "does not open with `//!` and what the file owns"));
    }
    let lines = file.text.lines().count();
    if lines > FILE_LINES {
        complaints.push(file.complain(lines, &format!("{lines} lines, at most {FILE_LINES}")));
    }
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    if name == "mod.rs" {
        complaints.push(file.complain(1, "modules are `foo.rs` + `foo/`, never `mod.rs`"));
    }
    if VAGUE.contains(&&*name) {
        complaints.push(file.complain(1, "the name does not say what the module owns"));
    }
    // A table that is written as a function says so, with its reason, to clippy and to us.
    let tables = file.text.contains("#![expect(clippy::too_many_lines, reason");
    for (line, length) in functions(&file.text).into_iter().filter(|_| !tables) {
        if length > FUNCTION_LINES {
            complaints
                .push(file.complain(line, &format!("function of {length} lines, at most {FUNCTION_LINES}")));
        }
    }
    complaints
}

/// First line (from 1) and length of each function. Relies on rustfmt: the closing brace stands alone, as far in as
/// the line that opens the function.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        if !opens_function(line.trim_start()) || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let end = lines[start..].iter().position(|line| {
            let inner = line.trim_start();
            line.len() - inner.len() == indent
                && (inner == "}" || inner.ends_with(';') && inner.starts_with(')'))
        });
        if let Some(end) = end {
            found.push((start + 1, end + 1));
        }
    }
    found
}

fn opens_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    loop {
        match words.next() {
            Some("fn") => return true,
            Some("async" | "const" | "extern" | "unsafe" | "\"C\"") => {}
            Some(word) if word.starts_with("pub") || word == "crate)" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::functions;

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let text = "impl X {\n    pub(crate) async fn a(\n        b: u8,\n    ) {\n        c();\n    }\n\n    fn d() {}\n}\n\
                    fn e() -> u8 {\n    1\n}\n";
        assert_eq!(functions(text), [(2, 5), (10, 3)], "a one-line function has no length worth a rule");
    }
}
