//! Names of kinds as people type them: any case, plural, short.

use anyhow::bail;

use crate::model::Kind;

/// The kind that is meant.
pub fn parse(text: &str) -> anyhow::Result<Kind> {
    let typed = text.to_ascii_lowercase();
    for kind in Kind::ALL {
        let name = kind.name().to_ascii_lowercase();
        if typed == name || typed == kind.short() || typed == kind.plural() || typed == format!("{name}s") {
            return Ok(*kind);
        }
    }
    let nearest = Kind::ALL
        .iter()
        .map(|kind| (strsim::jaro_winkler(&typed, &kind.name().to_ascii_lowercase()), kind))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    match nearest {
        Some((score, kind)) if score > 0.8 => {
            bail!("there is no kind {text:?}: did you mean {}?", kind.name().to_ascii_lowercase())
        }
        _ => {
            let all: Vec<_> = Kind::ALL.iter().map(|kind| kind.name().to_ascii_lowercase()).collect();
            bail!("there is no kind {text:?}: expected one of {}", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_every_name_people_use() {
        for (text, kind) in [
            ("serviceconnection", Kind::ServiceConnection),
            ("ServiceConnections", Kind::ServiceConnection),
            ("SC", Kind::ServiceConnection),
            ("postgreses", Kind::Postgres),
            ("kvs", Kind::KeyValueStore),
            ("mysql", Kind::MySQL),
        ] {
            assert_eq!(parse(text).unwrap(), kind, "{text}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        assert_eq!(
            parse("serviceconection").unwrap_err().to_string(),
            "there is no kind \"serviceconection\": did you mean serviceconnection?"
        );
    }
}
