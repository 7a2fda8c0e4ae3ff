//! How long a server may take, and how long to wait until it is asked again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Until an answer begins.
    pub answer: Duration,
    /// Until the server ends a watch, which is then resumed. Whole seconds.
    pub watch: Duration,
    /// How much later than that it may end.
    pub late: Duration,
    /// Between two questions whether the server is there.
    pub pulse: Duration,
    /// A watch that ends so soon and has told nothing is not asked for again at once.
    pub brief: Duration,
    /// The first wait after something went wrong.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            watch: Duration::from_mins(1),
            late: Duration::from_secs(5),
            pulse: Duration::from_secs(10),
            brief: Duration::from_secs(1),
            first: Duration::from_millis(250),
            longest: Duration::from_secs(8),
        }
    }
}

/// Doubles, with a quarter more or less by chance: what lost its server together does not come back together.
#[derive(Debug)]
pub struct Waits {
    pace: Pace,
    next: Duration,
    chance: RandomState,
    drawn: u64,
}

impl Waits {
    pub fn new(pace: Pace) -> Self {
        Self { pace, next: pace.first, chance: RandomState::new(), drawn: 0 }
    }

    pub fn next(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.pace.longest);
        self.drawn += 1;
        let percent = 75 + self.chance.hash_one(self.drawn) % 50;
        base * u32::try_from(percent).unwrap_or(100) / 100
    }

    /// Before the next watch, after one that has ended. One that was cut off goes on at once, but at a server that does
    /// nothing else than to cut them off, or to answer them with errors.
    pub fn after(&mut self, went: &Went) -> Duration {
        let enough = if went.failed { self.pace.longest } else { self.pace.brief };
        let well = went.told || went.lasted > enough;
        if well {
            self.reset();
        }
        if well && !went.failed { Duration::ZERO } else { self.next() }
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = self.pace.first;
    }
}

/// What a watch came to.
#[derive(Clone, Copy, Debug)]
pub struct Went {
    /// It ended with an error, not with its time or its line.
    pub failed: bool,
    /// It told something that was not known before.
    pub told: bool,
    pub lasted: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watch_that_told_or_lasted_begins_the_waits_again() {
        let pace = Pace::default();
        let went = |failed, told, lasted| Went { failed, told, lasted: Duration::from_millis(lasted) };
        // Which wait comes after three that were waited in vain: none, the first, or a longer one than those.
        let after = |went| {
            let mut waits = Waits::new(pace);
            let _three = [(); 3].map(|()| waits.next());
            let wait = waits.after(&went);
            if wait.is_zero() {
                "none"
            } else if wait < pace.first * 2 {
                "first"
            } else {
                "longer"
            }
        };
        let is = [
            (went(false, false, 0), "longer"),
            (went(false, false, 1001), "none"),
            (went(false, true, 0), "none"),
            (went(true, false, 0), "longer"),
            // Its error took its time, and that is all it did.
            (went(true, false, 1001), "longer"),
            (went(true, false, 8001), "first"),
            (went(true, true, 0), "first"),
        ];
        for (went, wait) in is {
            assert_eq!(after(went), wait, "{went:?}");
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_begin_again_when_it_went_well() {
        let mut waits = Waits::new(Pace::default());
        let near = |wait: Duration, base: Duration| base * 3 / 4 <= wait && wait <= base * 5 / 4;
        for base in [250, 500, 1000, 2000, 4000, 8000, 8000].map(Duration::from_millis) {
            assert!(near(waits.next(), base));
        }
        waits.reset();
        assert!(near(waits.next(), Duration::from_millis(250)));
    }
}
