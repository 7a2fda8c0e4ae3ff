//! The two clocks: what the kernel's programs count in, and what people write.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME` in nanoseconds.
pub fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// `CLOCK_REALTIME` − `CLOCK_BOOTTIME` in nanoseconds: add it to the one to have the other.
pub fn boot_time_unix_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME).saturating_sub(boot_ns())
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist on every kernel that can run the programs; zero would only mean "nothing is over yet".
    clock_gettime(clock)
        .map_or(0, |time| u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap_or(u64::MAX))
}
