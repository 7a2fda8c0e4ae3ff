//! Internet checksums (RFC 1071). Values are in network order, as they lie in the packet.

use aya_ebpf::helpers::bpf_csum_diff;
use enforcer_common::Addr;

use crate::maps::Answer;

/// What the sum over an address changes by when `old` becomes `new`.
#[inline(always)]
pub fn difference(old: &Addr, new: &Addr) -> u64 {
    let (mut old, mut new) = (old.words(), new.words());
    // SAFETY: both are sixteen readable bytes; the helper writes neither.
    unsafe { bpf_csum_diff(old.as_mut_ptr(), 16, new.as_mut_ptr(), 16, 0) as u64 }
}

/// Sum over `count` words of an answer from `first` on, on top of `seed`.
#[inline(always)]
pub fn sum(words: &mut Answer, first: usize, count: usize, seed: u32) -> u32 {
    let words = &mut words[first..first + count];
    // SAFETY: the slice has `count` words; the helper does not write them.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words.as_mut_ptr(), (count * 4) as u32, seed) as u32 }
}

/// The checksum of a sum: folded to sixteen bits and inverted.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
