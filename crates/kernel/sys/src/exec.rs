//! execve(2) with argument lists made beforehand.

use std::ffi::{CStr, CString, NulError};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::check;

/// A list of strings in the form execve(2) takes. Made before clone, so that nothing is allocated after it.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    owned: Vec<CString>,
}

impl Strings {
    /// Copies the strings.
    ///
    /// Errors: a string with a NUL byte inside.
    pub fn new<T: AsRef<[u8]>>(list: impl IntoIterator<Item = T>) -> Result<Self, NulError> {
        let owned = list.into_iter().map(|s| CString::new(s.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<_> = owned.iter().map(|s| s.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Self { pointers, owned })
    }

    /// The strings.
    pub fn list(&self) -> &[CString] {
        &self.owned
    }

    pub(crate) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

/// Replaces the process by the program at `path`. Returns only the error.
pub fn execve(path: &CStr, args: &Strings, env: &Strings) -> io::Error {
    // SAFETY: all pointers are to NUL-terminated strings and NULL-terminated lists that live through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process by the program that `file` is opened on (execveat(2) with `AT_EMPTY_PATH`). Returns only the
/// error. A script needs a descriptor that stays open over exec.
pub fn fexecve(file: BorrowedFd<'_>, args: &Strings, env: &Strings) -> io::Error {
    // SAFETY: as in `execve`; the path is an empty NUL-terminated string.
    let done = check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    });
    done.err().unwrap_or_else(io::Error::last_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_and_the_process_goes_on() {
        let none = Strings::new::<&str>([]).expect("no NUL");
        let args = Strings::new(["x"]).expect("no NUL");
        assert_eq!(execve(c"/nonexistent", &args, &none).raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn a_string_with_a_nul_byte_is_refused() {
        assert!(Strings::new([b"a\0b".as_slice()]).is_err());
    }
}
