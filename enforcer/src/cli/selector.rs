//! Kubernetes' selector syntax: `app=cart,tier in (web,api),env!=test,canary,!old`. Pure.
//!
//! ```text
//! selector    = requirement { "," requirement }
//! requirement = "!" key | key | key ( "=" | "==" | "!=" ) value | key ( "in" | "notin" ) "(" value { "," value } ")"
//! ```

use crate::{
    model::{LabelSelector, Operator, Requirement},
    validate::value,
};

/// What the text selects. An empty one is refused: it is a variable of a script that was not set, more often than the
/// wish to select everything.
pub fn parse(text: &str) -> Result<LabelSelector, String> {
    if text.trim().is_empty() {
        return Err("empty, expected KEY=VALUE and the like; without the flag all are selected".to_owned());
    }
    let mut selector = LabelSelector::default();
    for part in parts(text)? {
        let requirement = requirement(part)?;
        match (requirement, &mut selector) {
            (Term::Is(key, value), LabelSelector { match_labels, .. })
                if !match_labels.contains_key(&key) =>
            {
                match_labels.insert(key, value);
            }
            // Both have to hold: of two values for one key, nothing has both.
            (Term::Is(key, value), LabelSelector { match_labels, match_expressions }) => {
                if match_labels.get(&key) != Some(&value) {
                    match_expressions.push(Requirement { key, operator: Operator::In, values: vec![value] });
                }
            }
            (Term::Other(requirement), LabelSelector { match_expressions, .. }) => {
                match_expressions.push(requirement);
            }
        }
    }
    Ok(selector)
}

/// The selector as [`parse`] takes it; `all` for one that selects everything.
pub fn text(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
    let others = selector.match_expressions.iter().map(|requirement| {
        let Requirement { key, operator, values } = requirement;
        match operator {
            Operator::In => format!("{key} in ({})", values.join(",")),
            Operator::NotIn if values.len() == 1 => format!("{key}!={}", values.concat()),
            Operator::NotIn => format!("{key} notin ({})", values.join(",")),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }
    });
    let terms: Vec<String> = labels.chain(others).collect();
    if terms.is_empty() { "all".to_owned() } else { terms.join(",") }
}

enum Term {
    Is(String, String),
    Other(Requirement),
}

/// Commas between parentheses part values, not requirements.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return Err(format!("\"{text}\" has parentheses that do not match"));
        }
    }
    if depth != 0 {
        return Err(format!("\"{text}\" has parentheses that do not match"));
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(part: &str) -> Result<Term, String> {
    let part = part.trim();
    if part.is_empty() {
        return Err("nothing between two commas, expected KEY=VALUE and the like".to_owned());
    }
    let other = |key: &str, operator, values| {
        let key = key.to_owned();
        Ok(Term::Other(Requirement { key, operator, values }))
    };
    if let Some(absent) = part.strip_prefix('!') {
        return other(key(absent, part)?, Operator::DoesNotExist, Vec::new());
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, list) = list.split_once('(').unwrap_or((list, ""));
        let mut words = head.split_whitespace();
        let (name, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let operator = match (operator, words.next()) {
            ("in", None) => Operator::In,
            ("notin", None) => Operator::NotIn,
            _ => return Err(format!("\"{part}\": expected KEY in (…) or KEY notin (…)")),
        };
        let values = list.split(',').map(|text| value(text, part)).collect::<Result<_, _>>()?;
        return other(key(name, part)?, operator, values);
    }
    if part.contains(['<', '>']) {
        return Err(format!("\"{part}\": labels are not compared by size here, expected =, !=, in or notin"));
    }
    match part.split_once('=') {
        Some((name, text)) if name.ends_with('!') => {
            other(key(&name[..name.len() - 1], part)?, Operator::NotIn, vec![value(text, part)?])
        }
        Some((name, text)) => {
            let text = text.strip_prefix('=').unwrap_or(text);
            Ok(Term::Is(key(name, part)?.to_owned(), value(text, part)?))
        }
        None => other(key(part, part)?, Operator::Exists, Vec::new()),
    }
}

fn key<'a>(text: &'a str, part: &str) -> Result<&'a str, String> {
    let text = text.trim();
    value::label_key(text).map_err(|message| format!("\"{part}\": {message}"))?;
    Ok(text)
}

fn value(text: &str, part: &str) -> Result<String, String> {
    let text = text.trim();
    value::label_value(text).map_err(|message| format!("\"{part}\": {message}"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_whole_syntax_of_kubernetes_is_taken() {
        let in_ = |key: &str, operator: &str, values: &[&str]| match values {
            [] => json!({ "key": key, "operator": operator }),
            _ => json!({ "key": key, "operator": operator, "values": values }),
        };
        let labels = |key: &str, value: &str| json!({ "matchLabels": { key: value } });
        let terms = |terms: &[serde_json::Value]| json!({ "matchExpressions": terms });
        let table = [
            ("app=cart", labels("app", "cart")),
            (" app == cart ", labels("app", "cart")),
            ("app=", labels("app", "")),
            ("kubernetes.io/metadata.name=production", labels("kubernetes.io/metadata.name", "production")),
            ("app!=cart", terms(&[in_("app", "NotIn", &["cart"])])),
            ("app in (cart, web)", terms(&[in_("app", "In", &["cart", "web"])])),
            ("app in(cart)", terms(&[in_("app", "In", &["cart"])])),
            ("app notin (,x)", terms(&[in_("app", "NotIn", &["", "x"])])),
            ("app", terms(&[in_("app", "Exists", &[])])),
            ("!app", terms(&[in_("app", "DoesNotExist", &[])])),
            ("in", terms(&[in_("in", "Exists", &[])])),
            (
                "app=cart,env in (a,b),!old,app=cart",
                json!({
                    "matchLabels": { "app": "cart" },
                    "matchExpressions": [in_("env", "In", &["a", "b"]), in_("old", "DoesNotExist", &[])],
                }),
            ),
            (
                "app=cart,app=web",
                json!({ "matchLabels": { "app": "cart" }, "matchExpressions": [in_("app", "In", &["web"])] }),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(json!(parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_says_what_was_expected() {
        let table = [
            ("", "empty, expected KEY=VALUE and the like; without the flag all are selected"),
            ("a=b,", "nothing between two commas, expected KEY=VALUE and the like"),
            ("a in (b", "\"a in (b\" has parentheses that do not match"),
            ("a in b)", "\"a in b)\" has parentheses that do not match"),
            ("a within (b)", "\"a within (b)\": expected KEY in (…) or KEY notin (…)"),
            ("a>1", "\"a>1\": labels are not compared by size here, expected =, !=, in or notin"),
            (
                "a b=c",
                "\"a b=c\": \"a b\" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and .",
            ),
            (
                "a=b c",
                "\"a=b c\": \"b c\" is no value of a label, expected at most 63 letters, digits, -, _ and .",
            ),
            ("!", "\"!\": \"\" is no key of a label, expected [PREFIX/]NAME of letters, digits, -, _ and ."),
        ];
        for (text, message) in table {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_selector_is_what_its_text_says() {
        let terms = ["app=cart", "env!=a", "env in (a,b)", "env notin (a,b)", "x.y/z", "!old", "tier="];
        // Every subset, in the order in which a selector is written.
        for chosen in 1_u32..1 << terms.len() {
            let some = terms.iter().enumerate().filter(|(at, _)| chosen >> at & 1 == 1);
            let given = some.map(|(_, term)| *term).collect::<Vec<_>>().join(",");
            let selector = parse(&given).unwrap();
            assert_eq!(parse(&text(&selector)).unwrap(), selector, "{given}");
        }
        assert_eq!(text(&LabelSelector::default()), "all");
    }
}
