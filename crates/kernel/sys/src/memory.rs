//! The memory of this process: the C library's allocator and the pages of the program.

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

/// Time that this process has had of all processors, all its threads together.
pub fn processor_time() -> std::time::Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::try_from(spent).unwrap_or_default()
}

/// Lets go of the pages of this program that were touched until now: what only a start or a spell of work needed does not count
/// as this process's memory any more, and is the page cache's to keep or to drop. Pages that are needed are mapped again at their
/// next use, some at a time: a few hundred microseconds in all. Segments that can be written are left alone.
pub fn forget_program() {
    // SAFETY: getauxval only reads the vector that the kernel passed.
    let (headers, number) = unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    if headers == 0 {
        return;
    }
    let number = usize::try_from(number).unwrap_or(0);
    // SAFETY: the kernel says (AT_PHDR, AT_PHNUM) where it mapped this program's headers, which nothing changes.
    let headers = unsafe { std::slice::from_raw_parts(headers as *const libc::Elf64_Phdr, number) };
    let Some(table) = headers.iter().find(|h| h.p_type == libc::PT_PHDR) else { return };
    let base = (headers.as_ptr() as u64).wrapping_sub(table.p_vaddr);
    let page = rustix::param::page_size() as u64;
    for segment in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
        let start = base.wrapping_add(segment.p_vaddr).next_multiple_of(page);
        // The last page may be shared with the next segment, which can be written.
        let end = base.wrapping_add(segment.p_vaddr + segment.p_memsz) / page * page;
        let Some(length) = end.checked_sub(start).and_then(|l| usize::try_from(l).ok()) else { continue };
        // SAFETY: these are whole pages of a private mapping of a file that was never written to, so that what is dropped comes
        // back the same from the file.
        let _ =
            unsafe { rustix::mm::madvise(start as *mut std::ffi::c_void, length, rustix::mm::Advice::LinuxDontNeed) };
    }
}

#[cfg(test)]
mod tests {
    /// Kilobytes of this process that are pages of files.
    fn resident_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = status.lines().find_map(|l| l.strip_prefix("RssFile:")).expect("RssFile");
        line.trim().trim_end_matches(" kB").parse().expect("number")
    }

    #[test]
    fn pages_of_the_program_go_and_come_back() {
        let before = resident_files();
        super::forget_program();
        assert!(resident_files() < before, "{before} kB before");
        // Code and data are as they were.
        assert_eq!(format!("{:?}", [1.5, 2.0]), "[1.5, 2.0]");
        assert!(std::env::args().next().is_some());
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn the_number_of_heaps_is_limited_and_free_memory_given_back() {
        assert!(super::limit_heaps(2));
        drop(vec![1_u8; 1 << 20]);
        super::give_back();
    }
}
