//! The ABI between kernel and user side: keys and values of the BPF maps, events, and the verdict.
//!
//! Imports no other crate of the workspace. Every type that crosses the border is `repr(C)`, has no implicit
//! padding (zerocopy refuses to derive otherwise), no `bool`, enum or `Option`, and an asserted size.
//! Addresses and ports are kept in network order, everything else in the machine's.
#![no_std]

#[cfg(any(feature = "user", test))]
extern crate std;

/// Derives what a type needs to live in a BPF map, and pins its size.
macro_rules! abi {
    ($type:ty, $size:literal) => {
        const _: () = assert!(size_of::<$type>() == $size, concat!("size of ", stringify!($type)));

        #[cfg(feature = "user")]
        // SAFETY: the type derives zerocopy's `IntoBytes` and `FromBytes`, so that it has no padding and no
        // invalid bit pattern; it is `Copy` and holds no reference.
        unsafe impl aya::Pod for $type where $type: zerocopy::IntoBytes + zerocopy::FromBytes + Copy {}
    };
}

pub mod addr;
pub mod config;
pub mod event;
pub mod flow;
pub mod gateway;
pub mod grant;
pub mod guard;
pub mod maps;
pub mod verdict;
pub mod workload;

pub use addr::{Addr, Port};
