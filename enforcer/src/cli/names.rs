//! Names: one that was likely meant, and one that is made where none is given.

use std::{fs::File, io::Read as _};

use crate::model::Kind;

/// The name that a person most likely meant, where one is near enough to be no guess.
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    names
        .map(|name| (strsim::damerau_levenshtein(&typed, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5 && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// Letters and digits that make no words and are not taken for each other, as Kubernetes has them.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const LENGTH: usize = 5;
/// The longest name of an instance is shorter than a DNS label by its kind's name.
const LONGEST: usize = 40;

/// `orders-x7k2p`: after what it leads to, or after its kind.
pub fn generate(kind: Kind, leads_to: Option<&str>) -> std::io::Result<String> {
    let mut random = [0; LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(made(kind, leads_to, random))
}

fn made(kind: Kind, leads_to: Option<&str>, random: [u8; LENGTH]) -> String {
    let stem = leads_to.filter(|name| !name.is_empty()).unwrap_or(kind.short());
    let stem: String = stem.chars().take(LONGEST).collect();
    let tail = random.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    format!("{}-{}", stem.trim_end_matches(['-', '.']), String::from_iter(tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::value;

    #[test]
    fn what_is_near_is_meant_and_what_is_far_is_not() {
        let names = ["orders", "customers", "pg"];
        let near = |typed| nearest(typed, names.into_iter());
        assert_eq!(near("ordres"), Some("orders"));
        assert_eq!(near("Orders"), Some("orders"));
        assert_eq!(near("costumers"), Some("customers"));
        assert_eq!(near("gp"), Some("pg"));
        assert_eq!(near("zebra"), None);
        assert_eq!(near(""), None);
    }

    #[test]
    fn a_name_that_is_made_is_a_valid_one() {
        let long = "a-very-long-name-of-a-destination-which-goes.on-and-on-and-on";
        for leads_to in [None, Some("orders"), Some(long), Some("")] {
            for random in [[0; LENGTH], [255; LENGTH], [13, 26, 27, 28, 200]] {
                let name = made(Kind::ServiceConnection, leads_to, random);
                assert_eq!(value::dns_subdomain(&name), Ok(()), "{name}");
                assert!(name.len() <= LONGEST + 1 + LENGTH, "{name}");
            }
        }
        assert_eq!(made(Kind::Postgres, None, [0, 1, 2, 3, 26]), "pg-bcdf9");
    }
}
