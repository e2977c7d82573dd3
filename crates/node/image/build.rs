//! Compiles the program of the hello image by itself, without cargo: it has neither libc nor std, and the flags that
//! takes would reach every other crate of the workspace.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "../../../bins/wharf-hello/main.rs";

/// A static program of one segment that starts at `_start`.
const LINK: [&str; 4] =
    ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none,-z,noseparate-code,-z,nognustack,--gc-sections"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?).join("hello");
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", "hello", "--crate-type", "bin"]);
    rustc.args(["--target", &env::var("TARGET")?]);
    for flag in ["panic=abort", "opt-level=z", "strip=symbols", "relocation-model=static", "target-feature=+crt-static"]
    {
        rustc.args(["-C", flag]);
    }
    for argument in LINK {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc.arg("-o").arg(&out).arg(SOURCE).status()?;
    if !status.success() {
        return Err(format!("compiling {SOURCE} failed: {status}").into());
    }
    Ok(())
}
