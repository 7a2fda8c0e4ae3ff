//! Atomic additions and exchanges on words of map values: `core` has none for this target.

use core::arch::asm;

/// Adds to a word and gives what was there before.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, amount: u64) -> u64 {
    let mut value = amount;
    // SAFETY: the caller's; one instruction.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            value = inout(reg) value, word = in(reg) word, options(nostack));
    }
    value
}

/// Adds to a word.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub unsafe fn add_word(word: *mut u64, amount: u64) {
    // SAFETY: the caller's; one instruction.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {amount}",
            amount = in(reg) amount, word = in(reg) word, options(nostack));
    }
}

/// Adds to a half-word; a negative amount subtracts.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub unsafe fn add(word: *mut u32, amount: i32) {
    // SAFETY: the caller's; one instruction.
    unsafe {
        asm!("lock *(u32 *)({word} + 0) += {amount}",
            amount = in(reg) i64::from(amount), word = in(reg) word, options(nostack));
    }
}

/// Replaces `old` by `new`, and says whether it was this CPU that did.
///
/// # Safety
/// `word` points into a map value.
#[inline(always)]
pub unsafe fn replace(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's; one instruction, whose operand and result is r0.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {new})",
            new = in(reg) new, word = in(reg) word, inout("r0") old => found, options(nostack));
    }
    found == old
}
