//! Memory that large plans and many views took, and that nobody needs any more.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "the C library's own function"))]

/// Gives back to the system what is free. The allocator keeps it otherwise, and an agent that has once written a
/// quarter million grants would look for ever as if it still did.
pub fn give_back() {
    // SAFETY: `malloc_trim` takes no pointer and may be called at any time from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
