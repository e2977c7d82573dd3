//! Build checks: rules about files that build, but hardly mean what they say.
//!
//! The rules and their texts are those of docs.docker.com/reference/build-checks, which people filter by.

use std::collections::BTreeMap;

use crate::instruction::{Command, Form, Instruction, Kind};
use crate::line::Range;
use crate::stage::{Dockerfile, Stage};

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // `description` says what each is.
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// All rules.
    pub const ALL: [Rule; 21] = [
        Rule::StageNameCasing,
        Rule::FromAsCasing,
        Rule::NoEmptyContinuation,
        Rule::ConsistentInstructionCasing,
        Rule::DuplicateStageName,
        Rule::ReservedStageName,
        Rule::JsonArgsRecommended,
        Rule::MaintainerDeprecated,
        Rule::UndefinedArgInFrom,
        Rule::WorkdirRelativePath,
        Rule::UndefinedVar,
        Rule::MultipleInstructionsDisallowed,
        Rule::LegacyKeyValueFormat,
        Rule::RedundantTargetPlatform,
        Rule::SecretsUsedInArgOrEnv,
        Rule::InvalidDefaultArgInFrom,
        Rule::FromPlatformFlagConstDisallowed,
        Rule::CopyIgnoredFile,
        Rule::InvalidDefinitionDescription,
        Rule::ExposeProtoCasing,
        Rule::ExposeInvalidFormat,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Rule::StageNameCasing => "StageNameCasing",
            Rule::FromAsCasing => "FromAsCasing",
            Rule::NoEmptyContinuation => "NoEmptyContinuation",
            Rule::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Rule::DuplicateStageName => "DuplicateStageName",
            Rule::ReservedStageName => "ReservedStageName",
            Rule::JsonArgsRecommended => "JSONArgsRecommended",
            Rule::MaintainerDeprecated => "MaintainerDeprecated",
            Rule::UndefinedArgInFrom => "UndefinedArgInFrom",
            Rule::WorkdirRelativePath => "WorkdirRelativePath",
            Rule::UndefinedVar => "UndefinedVar",
            Rule::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Rule::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Rule::RedundantTargetPlatform => "RedundantTargetPlatform",
            Rule::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Rule::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Rule::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Rule::CopyIgnoredFile => "CopyIgnoredFile",
            Rule::InvalidDefinitionDescription => "InvalidDefinitionDescription",
            Rule::ExposeProtoCasing => "ExposeProtoCasing",
            Rule::ExposeInvalidFormat => "ExposeInvalidFormat",
        }
    }

    /// What it is about.
    pub fn description(self) -> &'static str {
        match self {
            Rule::StageNameCasing => "Stage names should be lowercase",
            Rule::FromAsCasing => "The 'as' keyword should match the case of the 'from' keyword",
            Rule::NoEmptyContinuation => "Empty continuation lines will become errors in a future release",
            Rule::ConsistentInstructionCasing => {
                "All commands within the Dockerfile should use the same casing (either upper or lower)"
            }
            Rule::DuplicateStageName => "Stage names should be unique",
            Rule::ReservedStageName => "Reserved words should not be used as stage names",
            Rule::JsonArgsRecommended => {
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
            }
            Rule::MaintainerDeprecated => {
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
            }
            Rule::UndefinedArgInFrom => "FROM command must use declared ARGs",
            Rule::WorkdirRelativePath => {
                "Relative workdir without an absolute workdir declared within the build can have unexpected results if \
                 the base image changes"
            }
            Rule::UndefinedVar => "Variables should be defined before their use",
            Rule::MultipleInstructionsDisallowed => {
                "Multiple instructions of the same type should not be used in the same stage"
            }
            Rule::LegacyKeyValueFormat => "Legacy key/value format with whitespace separator should not be used",
            Rule::RedundantTargetPlatform => {
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
            }
            Rule::SecretsUsedInArgOrEnv => "Sensitive data should not be used in the ARG or ENV commands",
            Rule::InvalidDefaultArgInFrom => {
                "Default value for global ARG results in an empty or invalid base image name"
            }
            Rule::FromPlatformFlagConstDisallowed => "FROM --platform flag should not use a constant value",
            Rule::CopyIgnoredFile => "Attempting to Copy file that is excluded by .dockerignore",
            Rule::InvalidDefinitionDescription => {
                "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If \
                 this is not intended to be a description comment, add an empty line or comment between the \
                 instruction and the comment."
            }
            Rule::ExposeProtoCasing => "Protocol in EXPOSE instruction should be lowercase",
            Rule::ExposeInvalidFormat => {
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error \
                 in a future release"
            }
        }
    }

    /// Where it is explained.
    pub fn url(self) -> String {
        let mut text = String::from("https://docs.docker.com/go/dockerfile/rule/");
        let name = if self == Rule::JsonArgsRecommended { "JsonArgsRecommended" } else { self.name() };
        for (i, c) in name.chars().enumerate() {
            if c.is_ascii_uppercase() && i > 0 {
                text.push('-');
            }
            text.push(c.to_ascii_lowercase());
        }
        text.push('/');
        text
    }

    /// Only on request.
    pub fn experimental(self) -> bool {
        matches!(self, Rule::InvalidDefinitionDescription)
    }
}

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub range: Range,
}

impl Warning {
    /// One line, as clients show it.
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), self.message, self.range.first)
    }
}

/// Which rules count, and what they found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    skip_all: bool,
    skip: Vec<String>,
    experimental_all: bool,
    experimental: Vec<String>,
    /// Whether a finding fails the build.
    pub error: bool,
    /// What was found, in the order of discovery.
    pub warnings: Vec<Warning>,
}

impl Checks {
    /// Reads `skip=…;error=true;experimental=…`, of the directive and of `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// Docker's texts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut checks = Self::default();
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("invalid check option {part:?}"))?;
            let list = || value.split(',').map(|v| v.trim().to_owned()).collect::<Vec<_>>();
            match key.trim() {
                "skip" if value.trim() == "all" => checks.skip_all = true,
                "skip" => checks.skip = list(),
                "experimental" if value.trim() == "all" => checks.experimental_all = true,
                "experimental" => checks.experimental = list(),
                "error" => {
                    checks.error = match value.trim() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        other => return Err(format!("failed to parse check option {other:?}: not a boolean")),
                    }
                }
                _ => return Err(format!("invalid check option {part:?}")),
            }
        }
        Ok(checks)
    }

    /// Notes a finding, unless its rule is left out or it is known already.
    pub fn warn(&mut self, rule: Rule, range: Range, message: String) {
        let named = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case(rule.name()));
        if rule.experimental() && !self.experimental_all && !named(&self.experimental) {
            return;
        }
        if self.skip_all || named(&self.skip) {
            return;
        }
        let warning = Warning { rule, message, range };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(crate) fn look(&mut self, file: &Dockerfile) {
        for range in &file.empty_continuations {
            self.warn(Rule::NoEmptyContinuation, *range, "Empty continuation line".to_owned());
        }
        self.casing(file);
        for (i, stage) in file.stages.iter().enumerate() {
            self.stage(file, i, stage);
        }
        for instruction in &file.global {
            self.describe(instruction);
            self.secrets(instruction);
        }
    }

    fn casing(&mut self, file: &Dockerfile) {
        let all = || {
            let stages = file.stages.iter().flat_map(|s| std::iter::once(&s.from).chain(&s.instructions));
            file.global.iter().chain(stages)
        };
        let is_lower = |i: &Instruction| i.keyword == i.keyword.to_ascii_lowercase();
        let is_upper = |i: &Instruction| i.keyword == i.keyword.to_ascii_uppercase();
        let lower = all().filter(|i| is_lower(i)).count();
        let upper = all().filter(|i| is_upper(i)).count();
        let majority_lower = lower > upper;
        for instruction in all() {
            let fits = if majority_lower { is_lower(instruction) } else { is_upper(instruction) };
            if !fits {
                let case = if majority_lower { "lowercase" } else { "uppercase" };
                let message =
                    format!("Command '{}' should match the case of the command majority ({case})", instruction.keyword);
                self.warn(Rule::ConsistentInstructionCasing, instruction.range, message);
            }
        }
    }

    fn stage(&mut self, file: &Dockerfile, index: usize, stage: &Stage) {
        let range = stage.from.range;
        if let (Some(name), Some(written)) = (&stage.name, &stage.written_name) {
            if name != written {
                self.warn(Rule::StageNameCasing, range, format!("Stage name '{written}' should be lowercase"));
            }
            if matches!(name.as_str(), "scratch" | "context") {
                let message = format!("Stage name should not use the same name as reserved stage \"{name}\"");
                self.warn(Rule::ReservedStageName, range, message);
            }
            if file.stages[..index].iter().any(|s| s.name.as_ref() == Some(name)) {
                let message = format!("Duplicate stage name \"{name}\", stage names should be unique");
                self.warn(Rule::DuplicateStageName, range, message);
            }
        }
        if let Some(keyword) = &stage.as_keyword {
            let from = &stage.from.keyword;
            let upper = |t: &str| t == t.to_ascii_uppercase();
            let lower = |t: &str| t == t.to_ascii_lowercase();
            if !(upper(from) && upper(keyword) || lower(from) && lower(keyword)) {
                let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
                self.warn(Rule::FromAsCasing, range, message);
            }
        }
        self.platform(stage, range);
        self.describe(&stage.from);
        for instruction in &stage.instructions {
            self.instruction(instruction);
        }
        self.multiple(stage);
        self.shell_forms(stage);
    }

    fn platform(&mut self, stage: &Stage, range: Range) {
        let Some(platform) = stage.platform.as_deref() else { return };
        match platform.trim_start_matches('$').trim_start_matches('{').trim_end_matches('}') {
            "TARGETPLATFORM" => {
                let message = format!(
                    "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
                );
                self.warn(Rule::RedundantTargetPlatform, range, message);
            }
            _ if !platform.contains('$') => {
                // A stage's name that tells the platform shows that it is meant.
                let (_, architecture) = platform.split_once('/').unwrap_or(("", platform));
                let architecture = architecture.split('/').next().unwrap_or_default();
                let told = stage.name.as_deref().is_some_and(|n| !architecture.is_empty() && n.contains(architecture));
                if !told {
                    let message = format!("FROM --platform flag should not use constant value \"{platform}\"");
                    self.warn(Rule::FromPlatformFlagConstDisallowed, range, message);
                }
            }
            _ => {}
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let range = instruction.range;
        match &instruction.command {
            Command::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                self.warn(Rule::MaintainerDeprecated, range, message);
            }
            Command::Env(pairs) | Command::Label(pairs) => {
                let keyword = instruction.keyword.to_ascii_uppercase();
                if pairs.iter().any(|p| p.legacy) {
                    let message = format!(
                        "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
                    );
                    self.warn(Rule::LegacyKeyValueFormat, range, message);
                }
            }
            _ => {}
        }
        self.describe(instruction);
        self.secrets(instruction);
    }

    /// Looks at one port of an EXPOSE instruction, after expansion.
    pub fn expose(&mut self, port: &str, range: Range) {
        let (rest, protocol) = port.rsplit_once('/').unwrap_or((port, ""));
        if protocol != protocol.to_ascii_lowercase() {
            let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
            self.warn(Rule::ExposeProtoCasing, range, message);
        }
        if rest.contains(':') {
            let message =
                format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
            self.warn(Rule::ExposeInvalidFormat, range, message);
        }
    }

    fn secrets(&mut self, instruction: &Instruction) {
        let (keyword, names): (_, Vec<&String>) = match &instruction.command {
            Command::Arg(list) => ("ARG", list.iter().map(|(k, _)| k).collect()),
            Command::Env(list) => ("ENV", list.iter().map(|p| &p.key).collect()),
            _ => return,
        };
        for name in names.into_iter().filter(|n| names_secret(n)) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\")");
            self.warn(Rule::SecretsUsedInArgOrEnv, instruction.range, message);
        }
    }

    fn describe(&mut self, instruction: &Instruction) {
        let name = match &instruction.command {
            Command::Arg(list) => list.first().map(|(k, _)| k.as_str()),
            Command::From { name, .. } => name.as_deref(),
            _ => None,
        };
        let Some(name) = name else { return };
        let Some(comment) = instruction.comments.last().filter(|c| c.starts_with(' ')) else { return };
        if comment.split_whitespace().next() != Some(name) {
            let what = if instruction.command.kind() == Kind::Arg { "ARG" } else { "FROM" };
            let message = format!("Comment for {what} should follow the format: `# {name} <description>`");
            self.warn(Rule::InvalidDefinitionDescription, instruction.range, message);
        }
    }

    fn multiple(&mut self, stage: &Stage) {
        let mut last: BTreeMap<&str, &Instruction> = BTreeMap::new();
        for instruction in &stage.instructions {
            let name = match instruction.command.kind() {
                Kind::Cmd => "CMD",
                Kind::Entrypoint => "ENTRYPOINT",
                Kind::Healthcheck => "HEALTHCHECK",
                _ => continue,
            };
            if let Some(earlier) = last.insert(name, instruction) {
                let message = format!(
                    "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                );
                self.warn(Rule::MultipleInstructionsDisallowed, earlier.range, message);
            }
        }
    }

    fn shell_forms(&mut self, stage: &Stage) {
        // Who sets a shell chose to have one.
        if stage.instructions.iter().any(|i| i.command.kind() == Kind::Shell) {
            return;
        }
        for instruction in &stage.instructions {
            let (name, form) = match &instruction.command {
                Command::Cmd(c) => ("CMD", &c.form),
                Command::Entrypoint(c) => ("ENTRYPOINT", &c.form),
                _ => continue,
            };
            if matches!(form, Form::Shell(text) if !text.is_empty()) {
                let message = format!(
                    "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
                );
                self.warn(Rule::JsonArgsRecommended, instruction.range, message);
            }
        }
    }
}

/// Whether a variable's name says that it holds a secret: one of its words between underscores.
fn names_secret(name: &str) -> bool {
    const SECRET: &[&str] =
        &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    let lower = name.to_ascii_lowercase();
    let mut words = lower.split('_');
    words.clone().any(|w| SECRET.contains(&w)) && !words.any(|w| w == "public")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str) -> Vec<String> {
        let file = Dockerfile::parse(file.as_bytes()).expect("valid");
        file.checks().expect("valid").warnings.iter().map(Warning::short).collect()
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        for (file, expected) in [
            ("FROM a AS Build", "StageNameCasing: Stage name 'Build' should be lowercase (line 1)"),
            ("FROM a as b", "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"),
            ("FROM a\nRUN x \\\n\n y", "NoEmptyContinuation: Empty continuation line (line 2)"),
            (
                "FROM a\nRUN x\nrun y",
                "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 3)",
            ),
            (
                "FROM a AS b\nFROM c AS b",
                "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
            ),
            (
                "FROM a AS scratch",
                "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
            ),
            (
                "FROM a\nCMD x",
                "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
            ),
            (
                "FROM a\nMAINTAINER x",
                "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
            ),
            (
                "FROM a\nCMD [\"x\"]\nCMD [\"y\"]",
                "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
            ),
            (
                "FROM a\nENV a b",
                "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            ),
            (
                "FROM --platform=$TARGETPLATFORM a",
                "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
            ),
            (
                "FROM a\nARG DB_PASSWORD",
                "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"DB_PASSWORD\") (line 2)",
            ),
            (
                "FROM --platform=linux/amd64 a",
                "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
            ),
            (
                "# check=experimental=all\n# other\nFROM a AS b",
                "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)",
            ),
        ] {
            assert_eq!(found(file), [expected], "{file}");
        }
    }

    #[test]
    fn rules_can_be_left_out_and_files_without_fault_have_none() {
        assert!(found("# check=skip=all\nFROM a AS B\nCMD x").is_empty());
        assert!(found("# check=skip=StageNameCasing\nFROM a AS B").is_empty());
        assert!(found("FROM a AS b\nARG PUBLIC_KEY\nENV X=1\nCMD [\"x\"]").is_empty());
        assert!(Checks::parse("nope=1").is_err());
        assert!(Checks::parse("error=true").expect("valid").error);
    }

    #[test]
    fn rules_have_addresses() {
        assert_eq!(
            Rule::JsonArgsRecommended.url(),
            "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        );
        assert_eq!(Rule::StageNameCasing.url(), "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
        assert_eq!(Rule::ALL.len(), 21);
    }
}
