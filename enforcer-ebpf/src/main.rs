//! Entry points: every program maps its pipeline's result to an action in one exhaustive match.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[aya_ebpf::macros::classifier]
pub fn from_pod(_ctx: aya_ebpf::programs::TcContext) -> i32 {
    -1
}
