//! `--change`: Dockerfile instructions applied to a configuration, with the meaning and texts of BuildKit's parser
//! and moby's `builder/dockerfile` (`BuildFromConfig`).

use wharf_oci::image::{Config, Empty, Healthcheck};
use wharf_types::Signal;

use crate::ImageError;
use crate::expand::variables;

/// A configuration with Dockerfile instructions applied to it in order, as `commit --change` gives them.
///
/// # Errors
/// [`ImageError::Change`] with Docker's text.
pub fn change(mut config: Config, changes: &[String]) -> Result<Config, ImageError> {
    apply(&mut config, changes)?;
    Ok(config)
}

/// Applies instructions in order.
///
/// # Errors
/// [`ImageError::Change`] with Docker's text.
pub(crate) fn apply(config: &mut Config, changes: &[String]) -> Result<(), ImageError> {
    let mut commanded = false;
    for change in changes {
        // One change may hold several lines, joined by a backslash where one instruction goes on.
        for line in logical_lines(change) {
            instruction(config, &line, &mut commanded)?;
        }
    }
    Ok(())
}

fn wrong(text: impl Into<String>) -> ImageError {
    ImageError::Change(text.into())
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(start) => open.push_str(start),
            None => lines.push(std::mem::take(&mut open) + line),
        }
    }
    if !open.is_empty() {
        lines.push(open);
    }
    lines
}

/// `commanded` says whether a CMD came before: an ENTRYPOINT takes away a command that came with the image
/// (`dispatchEntrypoint`).
fn instruction(config: &mut Config, line: &str, commanded: &mut bool) -> Result<(), ImageError> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim());
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(match is_known(&name) {
            true => wrong(format!("{name} requires at least one argument")),
            false => wrong(format!("{name} is not a valid change command")),
        });
    }
    let expanded = match name.as_str() {
        "ENV" | "LABEL" | "EXPOSE" | "USER" | "WORKDIR" | "VOLUME" | "STOPSIGNAL" => variables(rest, &config.env)?,
        _ => rest.to_owned(),
    };
    let rest = expanded.as_str();
    match name.as_str() {
        "CMD" => {
            config.cmd = Some(command(rest, &config.shell));
            *commanded = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest, &config.shell));
            if !*commanded {
                config.cmd = None;
            }
        }
        "ENV" => {
            for (key, value) in pairs("ENV", rest)? {
                let prefix = format!("{key}=");
                let entry = format!("{prefix}{value}");
                match config.env.iter_mut().find(|known| known.starts_with(&prefix)) {
                    Some(known) => *known = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs("LABEL", rest)?),
        "EXPOSE" => {
            for word in words(rest) {
                for port in ports(&word)? {
                    config.exposed_ports.insert(port, Empty {});
                }
            }
        }
        "USER" => config.user = single("USER", rest)?,
        "WORKDIR" => config.working_dir = join(&config.working_dir, &single("WORKDIR", rest)?),
        "VOLUME" => {
            let paths = json_list(rest).unwrap_or_else(|| words(rest));
            for path in paths {
                if path.is_empty() {
                    return Err(wrong("VOLUME specified can not be an empty string"));
                }
                config.volumes.insert(path, Empty {});
            }
        }
        "STOPSIGNAL" => {
            let text = single("STOPSIGNAL", rest)?;
            Signal::parse(&text).map_err(|e| wrong(e.to_string()))?;
            config.stop_signal = text;
        }
        "ONBUILD" => config.on_build.push(on_build(rest)?),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        _ => return Err(wrong(format!("{name} is not a valid change command"))),
    }
    Ok(())
}

fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 11] = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "LABEL",
        "EXPOSE",
        "USER",
        "WORKDIR",
        "VOLUME",
        "STOPSIGNAL",
        "ONBUILD",
        "HEALTHCHECK",
    ];
    KNOWN.contains(&name)
}

/// `["a", "b"]` as a list; anything else is not one.
fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The exec form as it is, the shell form behind the image's shell, `/bin/sh -c` by default.
fn command(text: &str, shell: &[String]) -> Vec<String> {
    match json_list(text) {
        Some(list) => list,
        None if text.is_empty() => Vec::new(),
        None if shell.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()],
        None => shell.iter().cloned().chain([text.to_owned()]).collect(),
    }
}

/// Words with quotes and backslashes taken away.
fn words(text: &str) -> Vec<String> {
    raw_words(text).iter().map(|word| unquote(word)).collect()
}

/// Splits at blanks outside of quotes; quotes stay.
fn raw_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quote, mut escaped) = (None, false);
    for c in text.chars() {
        if escaped {
            escaped = false;
            word.push(c);
            continue;
        }
        match (quote, c) {
            (None | Some('"'), '\\') => {
                escaped = true;
                word.push(c);
            }
            (None, '"' | '\'') => {
                quote = Some(c);
                word.push(c);
            }
            (Some(q), c) if q == c => {
                quote = None;
                word.push(c);
            }
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

fn unquote(word: &str) -> String {
    let mut text = String::new();
    let mut quote = None;
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\\') => text.extend(chars.next()),
            (Some('"'), '\\') if matches!(chars.peek(), Some('"' | '\\' | '$')) => text.extend(chars.next()),
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (_, c) => text.push(c),
        }
    }
    text
}

/// `a=b "c d"=e`, or the old form `a b c` of one pair.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ImageError> {
    let words = raw_words(text);
    let first = words.first().ok_or_else(|| wrong(format!("{instruction} requires at least one argument")))?;
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| wrong(format!("{instruction} must have two arguments")))?;
        return Ok(vec![(unquote(key), unquote(value.trim()))]);
    }
    let mut pairs = Vec::new();
    for word in &words {
        let Some((key, value)) = word.split_once('=') else {
            return Err(wrong(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")));
        };
        let key = unquote(key);
        if key.is_empty() {
            return Err(wrong(format!("{instruction} names can not be blank")));
        }
        pairs.push((key, unquote(value)));
    }
    Ok(pairs)
}

fn single(instruction: &str, text: &str) -> Result<String, ImageError> {
    match instruction {
        // The rest of the line is the path, blanks included.
        "WORKDIR" => Ok(unquote(text)),
        _ => match words(text).as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(wrong(format!("{instruction} requires exactly one argument"))),
        },
    }
}

/// A relative directory is below the one before. `.` and `..` are resolved in the text, as Go's `filepath.Join`.
fn join(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `80-82/tcp` as single ports with their protocol.
fn ports(text: &str) -> Result<Vec<String>, ImageError> {
    let invalid = || wrong(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong(format!("invalid proto: {protocol}")));
    }
    // A host part (`8080:80`) says nothing about the image.
    let range = range.rsplit(':').next().unwrap_or(range);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().map_err(|_| invalid());
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(invalid());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn on_build(text: &str) -> Result<String, ImageError> {
    let trigger = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match trigger.as_str() {
        "ONBUILD" => Err(wrong("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => Err(wrong(format!("{trigger} isn't allowed as an ONBUILD trigger"))),
        _ => Ok(text.to_owned()),
    }
}

fn healthcheck(text: &str) -> Result<Healthcheck, ImageError> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, more) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = more.trim_start();
        let (name, value) = flag.split_once('=').ok_or_else(|| wrong(format!("Missing a value on flag: {flag}")))?;
        match name {
            "interval" => check.interval = duration(name, value)?,
            "timeout" => check.timeout = duration(name, value)?,
            "start-period" => check.start_period = duration(name, value)?,
            "start-interval" => check.start_interval = duration(name, value)?,
            "retries" => {
                let retries = value.parse().ok().filter(|n| *n >= 0);
                check.retries = retries.ok_or_else(|| wrong(format!("--retries cannot be negative ({value})")))?;
            }
            _ => return Err(wrong(format!("unknown flag: --{name}"))),
        }
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err(wrong("HEALTHCHECK NONE takes no arguments")),
        "CMD" if command.is_empty() => return Err(wrong("missing command after HEALTHCHECK CMD")),
        "CMD" => {
            check.test = match json_list(command) {
                Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            };
        }
        _ => return Err(wrong(format!("unknown type \"{kind}\" in HEALTHCHECK (try CMD)"))),
    }
    Ok(check)
}

/// A Go duration (`1m30s`, `500ms`) in nanoseconds; not less than a millisecond.
fn duration(flag: &str, text: &str) -> Result<i64, ImageError> {
    let invalid = || wrong(format!("time: invalid duration {text:?}"));
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    if text.is_empty() || !(0.0..9e18).contains(&total) {
        return Err(invalid());
    }
    let total = total as i64;
    if total != 0 && total < 1_000_000 {
        return Err(wrong(format!("Interval \"{flag}\" cannot be less than 1ms")));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<Config, String> {
        let mut config = Config::default();
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply(&mut config, &changes).map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// The expected text is what dockerd 28.5 made of the same changes.
    #[test]
    fn every_instruction_changes_what_docker_changes() {
        let config = changed(&[
            "EXPOSE 80 90/udp",
            "LABEL a=b \"c d\"=e",
            "USER u",
            "VOLUME /x /y",
            "WORKDIR /w",
            "WORKDIR z",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s CMD foo bar",
            "ENV a b c",
            "ENTRYPOINT foo $a",
        ])
        .expect("valid");
        let expected = concat!(
            r#"{"User":"u","ExposedPorts":{"80/tcp":{},"90/udp":{}},"Env":["a=b c"],"#,
            r#""Entrypoint":["/bin/sh","-c","foo $a"],"Volumes":{"/x":{},"/y":{}},"WorkingDir":"/w/z","#,
            r#""Labels":{"a":"b","c d":"e"},"StopSignal":"SIGUSR1","#,
            r#""Healthcheck":{"Test":["CMD-SHELL","foo bar"],"Interval":5000000000},"OnBuild":["RUN x"]}"#
        );
        assert_eq!(serde_json::to_string(&config).expect("prints"), expected);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_changes_never_panic(
            name in "(CMD|ENV|LABEL|EXPOSE|USER|WORKDIR|VOLUME|STOPSIGNAL|ONBUILD|HEALTHCHECK)?",
            rest in "[ -~µ\n]{0,40}",
        ) {
            let _ = changed(&[&format!("{name} {rest}")]);
            let _ = changed(&[&format!("HEALTHCHECK --interval={rest} CMD x")]);
        }
    }

    #[test]
    fn exec_forms_and_quotes_are_understood() {
        let config = changed(&["CMD [\"/hello\", \"a b\"]", "env X=\"a b\" Y=c\\ d", "ENV X=z"]).expect("valid");
        assert_eq!(config.cmd, Some(vec!["/hello".to_owned(), "a b".to_owned()]));
        assert_eq!(config.env, ["X=z", "Y=c d"]);
    }

    /// As dockerd 28.5 answers the same `commit --change`.
    #[test]
    fn variables_come_from_the_environment_and_an_entrypoint_takes_the_command_away() {
        let mut config =
            Config { env: vec!["A=b".to_owned()], cmd: Some(vec!["sleep".to_owned()]), ..Config::default() };
        let changes = ["ENV X=$A/z", "LABEL l=${A:-q}${N:-q}", "ENTRYPOINT [\"foo\"]"].map(str::to_owned);
        apply(&mut config, &changes).expect("valid");
        assert_eq!(config.env, ["A=b", "X=b/z"]);
        assert_eq!(config.labels.get("l").map(String::as_str), Some("bq"));
        assert_eq!((config.cmd.clone(), config.entrypoint), (None, Some(vec!["foo".to_owned()])));
        let kept = changed(&["CMD [\"x\"]", "ENTRYPOINT foo"]).expect("valid");
        assert_eq!(kept.cmd, Some(vec!["x".to_owned()]));
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_text() {
        for (change, text) in [
            ("FOO bar", "FOO is not a valid change command"),
            ("RUN bar", "RUN is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("USER a b", "USER requires exactly one argument"),
            ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
        ] {
            assert_eq!(changed(&[change]).expect_err(change), text);
        }
    }
}
