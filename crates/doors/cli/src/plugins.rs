//! Programs that add commands: `docker-<name>` in the folders that Docker's client looks in (docker/cli
//! `cli-plugins/manager`), and the words they may say after a command (hooks).

use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::config::Config;
use crate::exit::{Exit, go_text};
use crate::parse::Matches;
use crate::shell::Shell;

/// Where plugins are installed, nearest first; the configuration's folder comes before these.
const FOLDERS: &[&str] = &[
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

fn folders(folder: &Path, config: &Config) -> Vec<PathBuf> {
    let own = config.cli_plugins_extra_dirs.iter().cloned();
    own.chain([folder.join("cli-plugins")]).chain(FOLDERS.iter().map(PathBuf::from)).collect()
}

/// Finds a plugin by its command's word.
pub fn find(folder: &Path, config: &Config, word: &str) -> Option<PathBuf> {
    // Names that plugins may have; anything else could lead out of the folder.
    let good = word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let name = format!("docker-{word}");
    let is_program = |path: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    good.then(|| folders(folder, config).into_iter().map(|f| f.join(&name)).find(is_program)).flatten()
}

/// Becomes the plugin, if the first word that is no global flag names one and no command of ours.
///
/// # Errors
/// Only if the plugin is there and cannot be run.
pub fn become_plugin(shell: &Shell, word: &str, words: &[String]) -> Result<(), Exit> {
    let config = shell.config();
    let alias = config.aliases.get(word).map(String::as_str);
    if alias.is_none() && crate::table::find(word).is_some() {
        return Ok(());
    }
    let Some(program) = find(shell.folder(), config, alias.unwrap_or(word)) else { return Ok(()) };
    let mut command = Command::new(&program);
    command.env("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", std::env::args_os().next().unwrap_or_default());
    // An alias is put in the place of the first word that is it.
    let mut replaced = alias.is_none();
    for given in words {
        match alias {
            Some(alias) if !replaced && given == word => {
                replaced = true;
                command.arg(alias);
            }
            _ => {
                command.arg(given);
            }
        }
    }
    let error = command.exec();
    Err(Exit::new(format!("docker: {}: {}", program.display(), go_text(&error))))
}

/// What a plugin answers to a hook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    #[serde(rename = "Template")]
    template: String,
}

/// Calls the plugins that want to be called after this command, and prints what they have to say. Only for people: not
/// where output goes to a file, and only if the configuration switches hooks on.
pub fn hooks(shell: &Shell, m: &Matches, failure: Option<&Exit>) {
    let config = shell.config();
    if config.plugins.is_empty() || !std::io::stdout().is_terminal() || !enabled(config) {
        return;
    }
    let path = m.command.path;
    let mut said = Vec::new();
    for (name, settings) in &config.plugins {
        let key = if failure.is_some() { "error-hooks" } else { "hooks" };
        let wanted = settings.get(key).or_else(|| settings.get("hooks").filter(|_| failure.is_some()));
        let called = |w: &str| path == w || path.starts_with(&format!("{w} "));
        if !wanted.is_some_and(|list| list.split(',').map(str::trim).any(called)) {
            continue;
        }
        let Some(program) = find(shell.folder(), config, name) else { continue };
        let flags: serde_json::Map<String, serde_json::Value> =
            m.given().map(|(flag, _)| (flag.long.to_owned(), "".into())).collect();
        let request = serde_json::json!({
            "RootCmd": path,
            "Flags": flags,
            "CommandError": failure.map(|e| e.message.clone()).unwrap_or_default(),
        });
        let mut command = Command::new(program);
        command.arg("docker-cli-plugin-hooks").arg(request.to_string()).stdin(Stdio::null()).stderr(Stdio::null());
        let Ok(done) = command.output() else { continue };
        let Ok(answer) = serde_json::from_slice::<Answer>(&done.stdout) else { continue };
        said.extend(answer.template.lines().filter_map(|line| expand(line, m)));
    }
    if !said.is_empty() {
        shell.warn(&format!("\n\x1b[1mWhat's next:\x1b[0m\n    {}", said.join("\n    ")));
    }
}

fn enabled(config: &Config) -> bool {
    let truth = |text: &str| matches!(text.to_lowercase().as_str(), "1" | "t" | "true");
    match std::env::var("DOCKER_CLI_HINTS") {
        Ok(text) if !text.is_empty() => truth(&text),
        _ => config.features.get("hooks").is_some_and(|text| truth(text)),
    }
}

/// Fills in `{{flag . "name"}}`, `{{arg . 0}}` and `{{.Name}}`; a line with anything else is left out.
fn expand(line: &str, m: &Matches) -> Option<String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, more)) = rest.split_once("{{") {
        let (inside, after) = more.split_once("}}")?;
        out.push_str(before);
        let words: Vec<&str> = inside.split_whitespace().collect();
        let value = match words.as_slice() {
            ["flag", ".", name] => m.text(name.trim_matches('"')).to_owned(),
            ["arg", ".", index] => m.args.get(index.parse::<usize>().ok()?)?.clone(),
            [".Name"] => m.command.path.rsplit(' ').next().unwrap_or_default().to_owned(),
            _ => return None,
        };
        out.push_str(&value);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_with_plain_names_are_plugins() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("temporary folder");
        let place = folder.path().join("cli-plugins");
        std::fs::create_dir(&place).expect("made");
        for (name, mode) in [("docker-good", 0o755), ("docker-plain", 0o644)] {
            std::fs::write(place.join(name), "").expect("written");
            std::fs::set_permissions(place.join(name), PermissionsExt::from_mode(mode)).expect("set");
        }
        let config = Config::default();
        assert_eq!(find(folder.path(), &config, "good"), Some(place.join("docker-good")));
        for word in ["plain", "nosuch", "../good", "", "Good"] {
            assert_eq!(find(folder.path(), &config, word), None, "{word}");
        }
    }
}
