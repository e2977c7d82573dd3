//! Manual pages, from the table: `docker __man FOLDER` writes one for each command, for packages to install.

use std::fmt::Write;
use std::path::Path;

use crate::exit::{Exit, path_error};
use crate::table::{self, Action, Command};

/// Writes `docker.1`, `docker-run.1`, … into a folder.
///
/// # Errors
/// Those of the file system.
pub fn write(folder: &Path) -> Result<(), Exit> {
    std::fs::create_dir_all(folder).map_err(|e| path_error("mkdir", &folder.to_string_lossy(), &e))?;
    for command in table::commands().filter(|c| !c.hidden) {
        let file = folder.join(format!("{}.1", page_name(command)));
        std::fs::write(&file, page(command)).map_err(|e| path_error("open", &file.to_string_lossy(), &e))?;
    }
    Ok(())
}

fn page_name(command: &Command) -> String {
    command.full_name().replace(' ', "-")
}

/// Text as roff takes it: dashes that can be copied, no line that is taken for a request.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn page(command: &Command) -> String {
    let name = page_name(command);
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        ".TH \"{}\" \"1\" \"\" \"{} {}\" \"Docker\"",
        name.to_uppercase(),
        crate::PRODUCT,
        crate::VERSION
    );
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", escape(&name), escape(command.summary));
    let usage = format!("{} {}", command.full_name(), command.usage);
    let _ = writeln!(out, ".SH SYNOPSIS\n.B {}", escape(usage.trim_end()));
    if !command.aliases.is_empty() {
        let aliases: Vec<String> = command.aliases.iter().map(|a| escape(&format!("docker {a}"))).collect();
        let _ = writeln!(out, ".SH ALIASES\n{}", aliases.join(", "));
    }
    let mut flags: Vec<_> = command.flags().filter(|f| !f.hidden).collect();
    flags.sort_by_key(|f| f.long);
    if !flags.is_empty() {
        let _ = writeln!(out, ".SH OPTIONS");
    }
    for flag in flags {
        let short = if flag.short == ' ' { String::new() } else { format!("\\fB\\-{}\\fP, ", flag.short) };
        let word = flag.kind.word();
        let value = if word.is_empty() { String::new() } else { format!(" \\fI{word}\\fP") };
        let default =
            if flag.default.is_empty() { String::new() } else { format!(" (default {})", escape(flag.default)) };
        let _ = writeln!(out, ".TP\n{short}\\fB\\-\\-{}\\fP{value}\n{}{default}", escape(flag.long), escape(flag.help));
    }
    if let Action::Group = command.action {
        let mut children = table::children(command.path);
        children.retain(|c| !c.hidden);
        let _ = writeln!(out, ".SH COMMANDS");
        for child in &children {
            let _ = writeln!(out, ".TP\n\\fB{}\\fP(1)\n{}", escape(&page_name(child)), escape(child.summary));
        }
    } else if let Some((above, _)) = command.path.rsplit_once(' ') {
        let _ = writeln!(out, ".SH SEE ALSO\n\\fB{}\\fP(1)", escape(&format!("docker {above}").replace(' ', "-")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_says_what_its_help_says() {
        let folder = tempfile::tempdir().expect("temporary folder");
        write(folder.path()).expect("written");
        let run = std::fs::read_to_string(folder.path().join("docker-container-run.1"))
            .or_else(|_| std::fs::read_to_string(folder.path().join("docker-run.1")))
            .expect("a page");
        assert!(run.starts_with(".TH ") && run.contains("\\fB\\-\\-memory\\fP") && run.contains(".SH SYNOPSIS"));
        assert!(folder.path().join("docker.1").exists());
        let visible = table::commands().filter(|c| !c.hidden).count();
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), visible);
        assert_eq!(escape(".x-y"), "\\&.x\\-y");
    }
}
