//! Numbers that the kernel knows things by: they live as long as the pins, so they are kept beside the bindings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ObjectKey;

/// Numbers given so far. None is ever given twice.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Numbers {
    last_grant: u32,
    last_connection: u32,
    /// Key: `namespace/name`.
    connections: BTreeMap<String, u32>,
}

impl Numbers {
    /// A number for `GRANT_STATS`.
    pub const fn next_grant(&mut self) -> u32 {
        self.last_grant += 1;
        self.last_grant
    }

    /// Makes sure that a number found in the kernel is not given again, as after the file was lost.
    pub fn reserve(&mut self, grant: u32, connection: u32) {
        self.last_grant = self.last_grant.max(grant);
        self.last_connection = self.last_connection.max(connection);
    }

    /// The number of a ServiceConnection.
    pub fn connection(&mut self, key: &ObjectKey) -> u32 {
        let last = &mut self.last_connection;
        *self.connections.entry(text(key)).or_insert_with(|| {
            *last += 1;
            *last
        })
    }

    /// Number → `namespace/name`, for events.
    pub fn connection_names(&self) -> BTreeMap<u32, String> {
        self.connections.iter().map(|(name, number)| (*number, name.clone())).collect()
    }

    /// How many connections have one.
    pub fn connections_known(&self) -> usize {
        self.connections.len()
    }

    /// Forgets connections that are gone.
    pub fn retain(&mut self, connections: impl Fn(&str) -> bool) {
        self.connections.retain(|name, _| connections(name));
    }
}

fn text(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn a_number_is_never_given_twice() {
        let key = |name| ObjectKey::new(Kind::ServiceConnection, "shop", name);
        let mut numbers = Numbers::default();
        numbers.reserve(7, 3);
        assert_eq!(
            (numbers.next_grant(), numbers.connection(&key("a")), numbers.connection(&key("a"))),
            (8, 4, 4)
        );
        numbers.retain(|_| false);
        assert_eq!(numbers.connection(&key("a")), 5);
        assert_eq!(numbers.connection_names(), BTreeMap::from([(5, "shop/a".to_owned())]));
    }
}
