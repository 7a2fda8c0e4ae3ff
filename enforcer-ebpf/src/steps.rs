//! What the verifier and the compiler must not know of each other's business.
//!
//! Loops whose body the verifier reads once: it follows an ordinary loop turn by turn, and every way out of it to the
//! end of the program ("BPF program is too large. Processed 1000001 insn" on 6.18).

/// State of a loop.
pub trait Steps {
    /// Does one step. `false`: that was the last.
    fn step(&mut self) -> bool;
}

/// Steps until the state says that it is enough, and no more than `most` times.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn repeat<S: Steps>(most: u32, state: &mut S) {
    // SAFETY: the callback is given the state it was made for, and the borrow lasts longer than the loop.
    unsafe {
        aya_ebpf::helpers::bpf_loop(
            most,
            turn::<S> as *mut core::ffi::c_void,
            core::ptr::from_mut(state).cast(),
            0,
        );
    }
}

#[cfg(target_arch = "bpf")]
extern "C" fn turn<S: Steps>(_: u64, state: *mut S) -> i64 {
    // SAFETY: `repeat` passes a borrow of its own.
    i64::from(!unsafe { &mut *state }.step())
}

/// Steps until the state says that it is enough, and no more than `most` times.
#[cfg(not(target_arch = "bpf"))]
pub fn repeat<S: Steps>(most: u32, state: &mut S) {
    for _ in 0..most {
        if !state.step() {
            break;
        }
    }
}

/// A value of which the compiler knows nothing from here on. It is an instruction, because line information that has
/// none is rejected ("Invalid line_info[3].insn_off:46 (prev_offset:46)").
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, preserves_flags, nostack)) };
    value
}

/// Zero, because the clock stays below 2^63 ns; but the verifier does not know. It follows a constant that leaves a
/// loop through the rest of the program, once for each way out.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn unknown_zero(now_ns: u64) -> u64 {
    opaque(now_ns) >> 63
}
