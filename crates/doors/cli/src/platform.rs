//! Platforms as `--platform` writes them: `linux/amd64`, `arm64`, `linux/arm/v7`.

const SYSTEMS: &[&str] = &["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "plan9", "android"];

const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le", "riscv64", "s390x",
    "loong64",
];

/// Reads a platform and writes it in full.
///
/// # Errors
/// The text of containerd's parser.
pub fn parse(text: &str) -> Result<String, String> {
    let quoted = crate::value::quoted;
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    for part in &parts {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if part.is_empty() || !part.bytes().all(fine) {
            return Err(format!(
                "{} is an invalid component of {}: platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\": invalid argument",
                quoted(part),
                quoted(text)
            ));
        }
    }
    let lower: Vec<String> = parts.iter().map(|p| p.to_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    match lower.as_slice() {
        [one] if SYSTEMS.contains(one) => Ok(format!("{one}/{}", host_architecture())),
        [one] => match normalize(one) {
            (arch, variant) if ARCHITECTURES.contains(&arch) => Ok(join("linux", arch, variant)),
            _ => Err(format!("{}: unknown operating system or architecture: invalid argument", quoted(text))),
        },
        [system, arch] => {
            let (arch, variant) = normalize(arch);
            Ok(join(system, arch, variant))
        }
        [system, arch, variant] => {
            let (arch, _) = normalize(arch);
            Ok(join(system, arch, variant))
        }
        _ => Err(format!("{}: cannot parse platform specifier: invalid argument", quoted(text))),
    }
}

fn join(system: &str, arch: &str, variant: &str) -> String {
    if variant.is_empty() { format!("{system}/{arch}") } else { format!("{system}/{arch}/{variant}") }
}

fn normalize(arch: &str) -> (&str, &str) {
    match arch {
        "i386" => ("386", ""),
        "x86_64" | "x86-64" => ("amd64", ""),
        "aarch64" => ("arm64", ""),
        "armhf" => ("arm", "v7"),
        "armel" => ("arm", "v6"),
        a => (a, ""),
    }
}

/// Returns this machine's architecture in Go's words.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        a => a,
    }
}
