//! The C library's allocator.

/// Limits the number of heaps that malloc(3) keeps for threads (mallopt(3), `M_ARENA_MAX`). Each holds on to what was freed in it, so a
/// daemon with many short-lived threads grows by their number; two heaps serve as many cores as such a daemon keeps busy.
/// Returns whether the library took it; libraries other than glibc have no such heaps.
pub fn limit_heaps(number: i32) -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt changes the allocator's parameters under its own lock and touches no allocation.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, number) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    {
        let _ = number;
        false
    }
}

/// Gives free pages at the ends and in the middle of the heaps back to the kernel (malloc_trim(3)).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: as above; only free memory is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_env = "gnu")]
    fn the_number_of_heaps_is_limited_and_free_memory_given_back() {
        assert!(super::limit_heaps(2));
        drop(vec![1_u8; 1 << 20]);
        super::give_back();
    }
}
