//! The socket buffer: the only place that touches packet memory.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use enforcer_common::verdict::DropReason;

use crate::{
    packet::{Bytes, Plain},
    steps::opaque,
};

/// Headers start before this offset: what the verifier needs to know of an offset that it cannot follow.
const HEADERS: u32 = 0x3ff;

/// A packet in a TC program.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Skb {
    raw: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn new(ctx: &TcContext) -> Self {
        Self { raw: ctx.skb.skb }
    }

    #[inline(always)]
    pub fn raw(self) -> *mut __sk_buff {
        self.raw
    }

    #[inline(always)]
    pub fn len(self) -> u32 {
        // SAFETY: the context of a running program is readable; the verifier admits this field.
        unsafe { (*self.raw).len }
    }

    /// Interface that the program runs on.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        let ifindex: u32;
        // The compiler likes to keep the address of a field for later, which is an address that the verifier does not
        // admit ("dereference of modified ctx ptr R6 off=40 disallowed").
        // SAFETY: as in `len`; one load.
        unsafe {
            core::arch::asm!(
                "{0} = *(u32 *)({1} + {2})",
                out(reg) ifindex,
                in(reg) self.raw,
                const core::mem::offset_of!(__sk_buff, ifindex),
                options(readonly, preserves_flags, nostack)
            );
        }
        ifindex
    }

    /// Payload of each segment that the packet will become; 0: it is one.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.raw).gso_size }
    }

    /// Whether the device has taken a VLAN tag out of the frame.
    #[inline(always)]
    pub fn is_tagged(self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (*self.raw).vlan_present != 0 }
    }

    /// Writes `value`. All offsets and pointers into the packet that the verifier knew are void after it; `Bytes`
    /// keeps none.
    #[inline(always)]
    pub fn store<T: Plain>(self, offset: u32, value: &T, flags: u64) -> Result<(), DropReason> {
        // SAFETY: `value` is a readable `T`; the kernel checks the offset.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.raw.cast(),
                offset,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        };
        checked(result)
    }

    /// Copies words from the packet to where they are wanted, without a stay on the stack.
    #[inline(always)]
    pub fn copy(self, offset: u32, words: &mut [u32]) -> Result<(), DropReason> {
        // SAFETY: the slice is writable; the kernel checks the offset.
        let result = unsafe {
            bpf_skb_load_bytes(
                self.raw.cast(),
                offset,
                words.as_mut_ptr().cast(),
                size_of_val(words) as u32,
            )
        };
        checked(result)
    }

    #[inline(always)]
    pub fn l3_checksum(self, offset: u32, from: u64, to: u64, size: u64) -> Result<(), DropReason> {
        // SAFETY: the kernel checks every argument.
        checked(unsafe { bpf_l3_csum_replace(self.raw.cast(), offset, from, to, size) })
    }

    #[inline(always)]
    pub fn l4_checksum(self, offset: u32, from: u64, to: u64, flags: u64) -> Result<(), DropReason> {
        // SAFETY: the kernel checks every argument.
        checked(unsafe { bpf_l4_csum_replace(self.raw.cast(), offset, from, to, flags) })
    }

    /// Makes the packet `length` bytes long; what is cut off is gone, what is new is zero.
    #[inline(always)]
    pub fn resize(self, length: u32) -> Result<(), DropReason> {
        // SAFETY: the kernel checks the length.
        checked(unsafe { bpf_skb_change_tail(self.raw, length, 0) })
    }
}

#[inline(always)]
fn checked(result: i64) -> Result<(), DropReason> {
    if result == 0 { Ok(()) } else { Err(DropReason::Internal) }
}

impl Bytes for Skb {
    #[inline(always)]
    fn near<T: Plain>(&self, offset: u32) -> Option<T> {
        // SAFETY: as in `len`.
        let (data, end) = unsafe { ((*self.raw).data as usize, (*self.raw).data_end as usize) };
        // The compiler must not know the offset, or it removes the comparison that the verifier asks for
        // ("math between pkt pointer and register with unbounded min value is not allowed").
        let offset = opaque(u64::from(offset)) as usize;
        if offset <= HEADERS as usize {
            // Compared and read through the same register, or the verifier does not connect the two
            // ("invalid access to packet, off=0 size=4, R1(id=3,off=0,r=0)").
            let start = opaque((data + offset) as u64) as usize;
            if start + size_of::<T>() <= end {
                // SAFETY: the `T` ends before the end of the linear part, which was asked for above, and nothing has
                // moved it since. The verifier admits misaligned loads only on machines that allow them.
                return Some(unsafe { *(start as *const T) });
            }
        }
        // Too short, or the header lies outside the linear part.
        self.read(offset as u32)
    }

    #[inline(always)]
    fn read<T: Plain>(&self, offset: u32) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` has room for a `T`; the kernel checks the offset.
        let result = unsafe {
            bpf_skb_load_bytes(self.raw.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
        };
        // SAFETY: the helper has written the whole `T`, and every bit pattern is one.
        if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
    }
}
