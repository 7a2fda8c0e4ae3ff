//! What became of the last write of a target, and when the next may be. Pure: whoever asks says what time it is.
//!
//! - What was written is not written again before the watch has shown it.
//! - Statuses that only count are written ever less often while they go on changing; what tells somebody something is
//!   written within a second.
//! - What is written once more as it was is what somebody else changes back: that becomes rarer and rarer, so that two
//!   who do not agree do not keep the server busy.
//! - A write that came too late for somebody else's is tried again as soon as theirs is known; any other failure waits
//!   longer every time.

use std::time::{Duration, Instant};

/// Between two writes of one status.
const STATUS_PACE: Duration = Duration::from_secs(1);
/// The same where it only counts, and goes on doing so.
const SLOWEST_PACE: Duration = Duration::from_secs(30);
/// A watch that does not show what was written for so long has lost it.
const ECHO: Duration = Duration::from_secs(15);
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// After a conflict, if the watch does not show what it was about.
const CONFLICT_WAIT: Duration = Duration::from_secs(2);
/// Who has not changed anything back for so long is no opponent any more.
const PEACE: Duration = Duration::from_mins(5);

/// What is to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wish {
    pub is_status: bool,
    /// It tells somebody something, it does not only count.
    pub tells: bool,
    /// Tells one content from another.
    pub content: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Last {
    /// The last one that went well: its content, the version that it made, and when.
    written: Option<(Wish, u64, Instant)>,
    /// Between two that only count.
    pace: Duration,
    /// How often it was changed back.
    undone: u32,
    failed: Option<Failed>,
}

#[derive(Clone, Debug)]
struct Failed {
    at: Instant,
    count: u32,
    /// Somebody else was faster: version that the watch had shown.
    conflict: Option<u64>,
    problem: String,
}

impl Last {
    pub fn succeeded(&mut self, wish: Wish, version: u64, now: Instant) {
        self.failed = None;
        let before = self.written.filter(|(_, _, at)| now.duration_since(*at) < PEACE);
        let is_again = before.is_some_and(|(before, ..)| before.content == wish.content);
        self.undone = match before {
            None => 0,
            Some(_) => self.undone + u32::from(is_again),
        };
        let is_soon = before.is_some_and(|(_, _, at)| now.duration_since(at) < self.pace * 2);
        self.pace = if is_soon { (self.pace * 2).min(SLOWEST_PACE) } else { STATUS_PACE };
        self.written = Some((wish, version, now));
    }

    /// `conflict`: somebody else was faster, and this is the version that was known then.
    pub fn failed(&mut self, problem: String, conflict: Option<u64>, now: Instant) -> Duration {
        let count = self.failed.as_ref().map_or(0, |failed| failed.count) + u32::from(conflict.is_none());
        let failed = Failed { at: now, count, conflict, problem };
        let wait = failed.wait();
        self.failed = Some(failed);
        wait
    }

    pub fn problem(&self) -> Option<&str> {
        self.failed.as_ref().map(|failed| failed.problem.as_str())
    }

    /// Whether it was written like this, and is to be once more.
    pub fn is_again(&self, wish: Wish) -> bool {
        self.written.is_some_and(|(before, ..)| before.content == wish.content)
    }

    /// Whether it still says anything.
    pub fn matters(&self, now: Instant) -> bool {
        self.failed.is_some() || self.written.is_some_and(|(_, _, at)| now.duration_since(at) < PEACE)
    }

    /// When it may be written, if not now. `shown` is the version that the watch has shown.
    pub fn not_before(&self, wish: Wish, shown: u64, now: Instant) -> Option<Instant> {
        let later = |at: Instant| (now < at).then_some(at);
        if let Some(failed) = &self.failed {
            let is_known = failed.conflict.is_some_and(|version| shown > version);
            return if is_known { None } else { later(failed.at + failed.wait()) };
        }
        let (_, version, at) = self.written?;
        if shown < version && now < at + ECHO {
            return Some(at + ECHO);
        }
        let mut pause = match (wish.is_status, wish.tells) {
            (true, true) => STATUS_PACE,
            (true, false) => self.pace,
            (false, _) => Duration::ZERO,
        };
        // The first time nobody waits.
        if self.is_again(wish) && self.undone > 0 {
            pause = pause.max(doubled(FIRST_WAIT, self.undone));
        }
        later(at + pause)
    }
}

impl Failed {
    fn wait(&self) -> Duration {
        if self.conflict.is_some() {
            CONFLICT_WAIT
        } else {
            doubled(FIRST_WAIT, self.count.saturating_sub(1))
        }
    }
}

fn doubled(wait: Duration, times: u32) -> Duration {
    wait.saturating_mul(2_u32.saturating_pow(times)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: Wish = Wish { is_status: false, tells: true, content: 1 };
    const COUNT: Wish = Wish { is_status: true, tells: false, content: 1 };

    fn count(content: u64) -> Wish {
        Wish { content, ..COUNT }
    }

    #[test]
    fn what_was_written_is_not_written_again_before_the_watch_has_shown_it() {
        let (start, mut last) = (Instant::now(), Last::default());
        last.succeeded(DOCUMENT, 7, start);
        let other = Wish { content: 2, ..DOCUMENT };
        assert_eq!(last.not_before(other, 6, start), Some(start + ECHO));
        assert_eq!(last.not_before(other, 7, start), None);
        assert_eq!(last.not_before(other, 6, start + ECHO), None);
    }

    #[test]
    fn what_somebody_changes_back_is_put_right_at_once_and_then_ever_more_rarely() {
        let (start, mut last) = (Instant::now(), Last::default());
        let (mut now, mut writes) = (start, 0);
        while now < start + Duration::from_mins(10) {
            writes += 1;
            last.succeeded(DOCUMENT, writes, now);
            now = last.not_before(DOCUMENT, writes, now).unwrap_or(now);
        }
        // At first, at once, then after 1, 2, 4, … 60 seconds.
        assert_eq!(writes, 16);
        assert_eq!(last.not_before(Wish { content: 2, ..DOCUMENT }, writes, now), None, "another content");
        last.succeeded(DOCUMENT, writes, now + PEACE);
        assert_eq!(last.not_before(DOCUMENT, writes, now + PEACE), None, "after a while it is forgotten");
    }

    #[test]
    fn counts_that_go_on_changing_are_written_ever_less_often_and_what_tells_within_a_second() {
        let (start, mut last) = (Instant::now(), Last::default());
        let (mut now, mut writes) = (start, 0);
        while now < start + Duration::from_mins(2) {
            writes += 1;
            last.succeeded(count(writes), writes, now);
            now = last.not_before(count(writes + 1), writes, now).unwrap_or(now);
        }
        // After 1, 2, 4, 8, 16 seconds, then every 30.
        assert_eq!(writes, 8);
        let tells = Wish { tells: true, ..count(0) };
        last.succeeded(count(writes + 1), writes, now);
        assert_eq!(last.not_before(tells, writes, now), Some(now + STATUS_PACE));
        let later = now + SLOWEST_PACE * 3;
        last.succeeded(count(writes + 2), writes, later);
        assert_eq!(last.not_before(count(0), writes, later), Some(later + STATUS_PACE), "it was quiet");
    }

    #[test]
    fn who_was_too_late_tries_again_when_the_other_is_known_and_any_other_failure_waits_longer() {
        let (start, mut last) = (Instant::now(), Last::default());
        for wait in [500, 1000, 2000, 4000] {
            assert_eq!(last.failed("no".to_owned(), None, start), Duration::from_millis(wait));
        }
        last.failed("too late".to_owned(), Some(7), start);
        assert_eq!(last.not_before(COUNT, 7, start), Some(start + CONFLICT_WAIT));
        assert_eq!(last.not_before(COUNT, 8, start), None);
        assert_eq!(last.failed("no".to_owned(), None, start), Duration::from_secs(8), "others wait on");
    }
}
