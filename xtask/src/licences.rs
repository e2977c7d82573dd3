//! Licences: every package that is linked in must be usable in an Apache-2.0 program that is linked statically.

use crate::workspace::Workspace;

const ALLOWED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "CC0-1.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Whether an SPDX expression can be met with allowed licences: every `AND` part has an allowed `OR` part.
fn acceptable(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|licence| ALLOWED.contains(&licence.trim())))
}

/// Lists the packages whose licence is missing or not on the list.
pub fn check(workspace: &Workspace) -> Vec<String> {
    let refused = workspace.licences.iter().filter(|(_, licence)| !licence.as_deref().is_some_and(acceptable));
    refused.map(|(package, licence)| format!("package {package} has licence {licence:?}")).collect()
}

#[cfg(test)]
mod tests {
    use super::acceptable;

    #[test]
    fn an_expression_is_acceptable_when_every_and_part_offers_an_allowed_licence() {
        for good in ["MIT", "MIT OR Apache-2.0", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
            assert!(acceptable(good), "{good}");
        }
        for bad in ["GPL-3.0", "LGPL-2.1 OR MPL-2.0", "MIT AND GPL-2.0"] {
            assert!(!acceptable(bad), "{bad}");
        }
    }
}
