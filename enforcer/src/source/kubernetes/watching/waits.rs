//! How long to wait until the server is asked again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// Doubles, with a quarter more or less by chance: what lost its server together does not come back together.
#[derive(Debug)]
pub struct Waits {
    next: Duration,
    chance: RandomState,
    drawn: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { next: FIRST, chance: RandomState::new(), drawn: 0 }
    }
}

impl Waits {
    pub fn next(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(LONGEST);
        self.drawn += 1;
        let percent = 75 + self.chance.hash_one(self.drawn) % 50;
        base * u32::try_from(percent).unwrap_or(100) / 100
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_again_when_it_went_well() {
        let mut waits = Waits::default();
        let near = |wait: Duration, base: Duration| base * 3 / 4 <= wait && wait <= base * 5 / 4;
        for base in [250, 500, 1000, 2000, 4000, 8000, 8000].map(Duration::from_millis) {
            assert!(near(waits.next(), base));
        }
        waits.reset();
        assert!(near(waits.next(), FIRST));
    }
}
