//! The words of a process's command line, as ps(1) shows them.

use std::io;

/// Replaces them, in the memory in which the process got its own (proc_pid_cmdline(5)). What does not fit is cut.
///
/// To be called by a process with one thread that is done reading its arguments.
pub fn set_words(words: &[&[u8]]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, field 2, may hold anything; proc_pid_stat(5): arg_start is field 48, arg_end 49.
    let mut fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(45)).into_iter().flatten();
    let mut number = || fields.next().and_then(|field| field.trim().parse::<usize>().ok());
    let (Some(start), Some(end)) = (number(), number()) else { return Err(io::ErrorKind::InvalidData.into()) };
    let Some(room) = end.checked_sub(start).filter(|room| start > 0 && *room > 0) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut text: Vec<u8> = words.iter().flat_map(|word| word.iter().copied().chain([0])).collect();
    text.resize(room, 0);
    // The last byte stays zero: otherwise the kernel takes the environment for a continuation.
    text[room - 1] = 0;
    // SAFETY: the kernel placed `room` bytes of argument strings there, on this process's own writable stack; they stay
    // mapped for its life, and by contract nothing reads them meanwhile.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, room) };
    Ok(())
}
