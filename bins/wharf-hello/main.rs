//! The program inside the image `wharf/hello`, which dockerd carries so that the first run needs no registry.
//!
//! It stands outside the workspace: `crates/node/image/build.rs` compiles it by itself, without libc and without the
//! standard library, because it has to be there before any image is, and a few hundred bytes cost dockerd nothing.

#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

const TEXT: &[u8] = b"
Hello from Wharf!
This message shows that your installation works.

What just happened:
 1. The docker client asked the Wharf daemon to run the image wharf/hello.
 2. The daemon found the image inside itself, unpacked it and made a container of it.
 3. A shim started this program in its own namespaces.
 4. The daemon streamed its output to the client, which sent it to your terminal.

To go on, import a root file system and look around in it:
 $ docker import rootfs.tar mybase
 $ docker run -it mybase sh

";

const EINTR: isize = -4;

// The kernel enters here with the stack pointer aligned to 16 bytes and no return address (System V ABI, "Process
// Initialization"); `call` gives `run` the frame that a function expects.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {run}", "ud2", run = sym run);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x30, #0", "bl {run}", "brk #1", run = sym run);

extern "C" fn run() -> ! {
    let mut rest = TEXT;
    while !rest.is_empty() {
        match write(rest) {
            EINTR => {}
            n if n > 0 => rest = rest.get(n as usize..).unwrap_or_default(),
            _ => exit(1),
        }
    }
    exit(0)
}

#[cfg(target_arch = "x86_64")]
fn write(bytes: &[u8]) -> isize {
    let result;
    // SAFETY: write(2), number 1, reads `bytes.len()` bytes at `bytes`, which are alive; the kernel clobbers rcx and
    // r11 and nothing else.
    unsafe {
        asm!("syscall", inlateout("rax") 1isize => result, in("rdi") 1, in("rsi") bytes.as_ptr(),
            in("rdx") bytes.len(), lateout("rcx") _, lateout("r11") _, options(nostack, readonly));
    }
    result
}

#[cfg(target_arch = "x86_64")]
fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2), number 231, takes a number and does not return.
    unsafe { asm!("syscall", in("rax") 231, in("rdi") status, options(noreturn, nostack)) }
}

#[cfg(target_arch = "aarch64")]
fn write(bytes: &[u8]) -> isize {
    let result;
    // SAFETY: write(2), number 64, reads `bytes.len()` bytes at `bytes`, which are alive; the kernel clobbers no
    // other register.
    unsafe {
        asm!("svc #0", in("x8") 64, inlateout("x0") 1isize => result, in("x1") bytes.as_ptr(),
            in("x2") bytes.len(), options(nostack, readonly));
    }
    result
}

#[cfg(target_arch = "aarch64")]
fn exit(status: i32) -> ! {
    // SAFETY: exit_group(2), number 94, takes a number and does not return.
    unsafe { asm!("svc #0", in("x8") 94, in("x0") status, options(noreturn, nostack)) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(2)
}
