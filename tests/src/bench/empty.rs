//! A program that does nothing: what running any program costs.
//!
//! Two instructions, given to the kernel as they are; aya loads objects only.
#![expect(unsafe_code, reason = "bpf(2) takes addresses")]

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// `r0 = -1; exit`
const INSTRUCTIONS: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Immutable, IntoBytes)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// The head of `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Immutable, IntoBytes)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

pub struct Empty {
    program: OwnedFd,
}

impl Empty {
    pub fn load() -> io::Result<Self> {
        let mut attributes = Load {
            program_type: BPF_PROG_TYPE_SCHED_CLS,
            instruction_count: INSTRUCTIONS.len() as u32,
            instructions: INSTRUCTIONS.as_ptr().addr() as u64,
            license: c"GPL".as_ptr().addr() as u64,
        };
        let fd = bpf(BPF_PROG_LOAD, &mut attributes)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { program: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Mean time of one run, in nanoseconds.
    pub fn time(&self, packet: &[u8], repeat: u32) -> io::Result<u32> {
        let mut attributes = TestRun {
            program: self.program.as_raw_fd().cast_unsigned(),
            result: 0,
            size_in: packet.len() as u32,
            size_out: 0,
            data_in: packet.as_ptr().addr() as u64,
            data_out: 0,
            repeat,
            duration: 0,
        };
        bpf(BPF_PROG_TEST_RUN, &mut attributes)?;
        Ok(attributes.duration)
    }
}

fn bpf<T: IntoBytes>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is the head of a `union bpf_attr` of the size that is given, and whatever it points to
    // lives longer than the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
