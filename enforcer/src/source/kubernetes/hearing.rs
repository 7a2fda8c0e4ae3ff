//! Whether the API server can be followed, since when it is so, and why not. It says nothing of the objects: those are
//! what they were said to be last.

use std::collections::{BTreeMap, BTreeSet};

/// What is heard of a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hearing {
    /// RFC 3339.
    pub since: String,
    /// Why not everything can be followed.
    pub silent: Option<String>,
}

/// What is heard of several servers: everything is heard when each is.
pub(super) fn together(all: &[Hearings]) -> Hearing {
    let silent = || all.iter().filter(|one| one.now.silent.is_some()).map(|one| &one.now);
    let whys: Vec<&str> = silent().filter_map(|one| one.silent.as_deref()).collect();
    if whys.is_empty() {
        let since = all.iter().map(|one| &one.now.since).max().cloned().unwrap_or_default();
        return Hearing { since, silent: None };
    }
    let since = silent().map(|one| &one.since).min().cloned().unwrap_or_default();
    Hearing { since, silent: Some(whys.join("; ")) }
}

/// What is wrong with each watch.
pub(super) struct Hearings {
    server: String,
    /// Every list has been complete once.
    told: bool,
    /// What cannot be followed, and why. Key: number of the watch.
    troubles: BTreeMap<usize, (&'static str, String)>,
    now: Hearing,
}

impl Hearings {
    pub fn new(server: &str) -> Self {
        let since = format!("{:.0}", jiff::Timestamp::now());
        let mut hearings = Self {
            server: server.trim_end_matches('/').to_owned(),
            told: false,
            troubles: BTreeMap::new(),
            now: Hearing { since, silent: None },
        };
        hearings.now.silent = hearings.silent();
        hearings
    }

    /// Of the watch of this number.
    pub fn note(&mut self, number: usize, what: &'static str, trouble: Option<String>) {
        match trouble {
            Some(why) => drop(self.troubles.insert(number, (what, why))),
            None => drop(self.troubles.remove(&number)),
        }
        self.update();
    }

    /// Every list has been complete once.
    pub fn all_told(&mut self) {
        if !self.told {
            self.told = true;
            self.update();
        }
    }

    fn update(&mut self) {
        let silent = self.silent();
        if silent.is_some() != self.now.silent.is_some() {
            self.now.since = format!("{:.0}", jiff::Timestamp::now());
        }
        self.now.silent = silent;
    }

    fn silent(&self) -> Option<String> {
        let mut whys: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (what, why) in self.troubles.values() {
            whys.entry(why).or_default().insert(what);
        }
        let whys: Vec<String> = if let [(why, _)] = &*whys.iter().collect::<Vec<_>>() {
            vec![(**why).to_owned()]
        } else {
            let text = |(why, whats): (&&str, &BTreeSet<&str>)| {
                format!("{}: {why}", whats.iter().copied().collect::<Vec<_>>().join(", "))
            };
            whys.iter().map(text).collect()
        };
        let then = match (whys.is_empty(), self.told) {
            (true, true) => return None,
            (false, true) => "what it said last is in force",
            (_, false) => "it has not told everything yet",
        };
        let all = whys.into_iter().chain([then.to_owned()]).collect::<Vec<_>>().join("; ");
        Some(format!("{}: {all}", self.server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_servers_the_one_that_is_silent_is_named() {
        let mut both = ["https://one.example", "https://two.example"].map(Hearings::new);
        both[0].all_told();
        assert_eq!(
            together(&both).silent.as_deref(),
            Some("https://two.example: it has not told everything yet")
        );
        both[1].all_told();
        assert_eq!(together(&both).silent, None);
        both[0].note(0, "pods", Some("refused".to_owned()));
        assert_eq!(
            together(&both).silent.as_deref(),
            Some("https://one.example: refused; what it said last is in force")
        );
    }

    #[test]
    fn a_server_is_heard_when_it_has_told_everything_and_silent_as_long_as_one_watch_is() {
        let mut hearings = Hearings::new("https://api.example:6443/");
        let says = |hearings: &Hearings| hearings.now.silent.clone().unwrap_or_default();
        assert_eq!(says(&hearings), "https://api.example:6443: it has not told everything yet");
        hearings.note(1, "pods", Some("refused".to_owned()));
        assert_eq!(says(&hearings), "https://api.example:6443: refused; it has not told everything yet");
        hearings.note(1, "pods", None);
        hearings.all_told();
        assert_eq!(hearings.now.silent, None);

        hearings.note(1, "pods", Some("refused".to_owned()));
        hearings.note(0, "nodes", Some("refused".to_owned()));
        assert_eq!(says(&hearings), "https://api.example:6443: refused; what it said last is in force");
        hearings.note(2, "services", Some("not allowed".to_owned()));
        assert_eq!(
            says(&hearings),
            "https://api.example:6443: services: not allowed; nodes, pods: refused; what it said last is in force"
        );
        for number in 0..3 {
            hearings.note(number, "", None);
        }
        assert_eq!(hearings.now.silent, None);
    }
}
