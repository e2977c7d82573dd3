//! The file as a whole: global arguments and stages.

use crate::check::Checks;
use crate::error::{DockerfileError, Located};
use crate::instruction::{Command, Instruction, parse_instruction};
use crate::line::{Directives, Range, logical_lines};

/// One stage, from its FROM to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The base: an image, `scratch`, an earlier stage, a named context. Not expanded.
    pub base: String,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// Its name as written.
    pub written_name: Option<String>,
    /// The keyword `AS` as written.
    pub as_keyword: Option<String>,
    /// `--platform`, not expanded.
    pub platform: Option<String>,
    /// The FROM instruction.
    pub from: Instruction,
    /// What follows it.
    pub instructions: Vec<Instruction>,
}

/// A Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Parser directives.
    pub directives: Directives,
    /// ARG instructions before the first FROM.
    pub global: Vec<Instruction>,
    /// Stages in order; at least one.
    pub stages: Vec<Stage>,
    /// Lines with an empty line among their continuations.
    pub empty_continuations: Vec<Range>,
}

impl Dockerfile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`DockerfileError`] with Docker's texts.
    pub fn parse(bytes: &[u8]) -> Result<Self, DockerfileError> {
        let (directives, lines) = logical_lines(bytes)?;
        if lines.is_empty() {
            return Err(DockerfileError::Whole("the Dockerfile cannot be empty".to_owned()));
        }
        let mut file = Self { directives, global: Vec::new(), stages: Vec::new(), empty_continuations: Vec::new() };
        for line in &lines {
            if line.empty_continuation {
                file.empty_continuations.push(line.range);
            }
            file.take(parse_instruction(line, file.directives.escape)?)?;
        }
        if file.stages.is_empty() {
            return Err(DockerfileError::Whole("dockerfile contains no stages to build".to_owned()));
        }
        Ok(file)
    }

    fn take(&mut self, instruction: Instruction) -> Result<(), DockerfileError> {
        if let Command::From { image, name, as_keyword, platform } = &instruction.command {
            self.stages.push(Stage {
                base: image.clone(),
                name: name.as_ref().map(|n| n.to_ascii_lowercase()),
                written_name: name.clone(),
                as_keyword: as_keyword.clone(),
                platform: platform.clone(),
                from: instruction,
                instructions: Vec::new(),
            });
            return Ok(());
        }
        match (self.stages.last_mut(), &instruction.command) {
            (Some(stage), _) => stage.instructions.push(instruction),
            (None, Command::Arg(_)) => self.global.push(instruction),
            (None, _) => return Err("no build stage in current context".to_owned()).at(instruction.range),
        }
        Ok(())
    }

    /// The index of a stage by name (the last of that name) or number.
    pub fn stage(&self, name: &str) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        self.stages
            .iter()
            .rposition(|s| s.name.as_deref() == Some(&lower))
            .or_else(|| name.parse().ok().filter(|i| *i < self.stages.len()))
    }

    /// The checks that this file asks for, and what they find without building.
    ///
    /// # Errors
    /// A wrong `# check=` directive.
    pub fn checks(&self) -> Result<Checks, DockerfileError> {
        let mut checks = match &self.directives.check {
            Some((text, range)) => Checks::parse(text).at(*range)?,
            None => Checks::default(),
        };
        checks.look(self);
        Ok(checks)
    }
}

/// The known word that is nearest to a mistyped one, if it is near enough (an edit distance of less than three).
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.map(|k| (distance(word, k), k)).filter(|(d, _)| *d < 3).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut last = i;
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (last + usize::from(ca != *cb)).min(row[j] + 1).min(row[j + 1] + 1);
            last = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::Form;

    fn error(file: &str) -> String {
        Dockerfile::parse(file.as_bytes()).expect_err(file).to_string()
    }

    #[test]
    fn stages_and_global_arguments_are_told_apart() {
        let file = Dockerfile::parse(b"ARG V=1\nFROM a:$V AS One\nARG X\nRUN x\nfrom one\n").expect("valid");
        assert_eq!((file.global.len(), file.stages.len()), (1, 2));
        assert_eq!(file.stages[0].name.as_deref(), Some("one"));
        assert_eq!((file.stage("ONE"), file.stage("1"), file.stage("2")), (Some(0), Some(1), None));
    }

    #[test]
    fn errors_have_dockers_texts() {
        for (file, text) in [
            ("", "the Dockerfile cannot be empty"),
            ("ARG A\n", "dockerfile contains no stages to build"),
            ("RUN x\n", "dockerfile parse error on line 1: no build stage in current context"),
            ("FROM a b\n", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
            ("FROM a\nRUNN x\n", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"),
            ("FROM a\nENV a\n", "dockerfile parse error on line 2: ENV must have two arguments"),
            ("FROM a\nWORKDIR\n", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
            ("FROM a\nEXPOSE\n", "dockerfile parse error on line 2: EXPOSE requires at least one argument"),
            (
                "FROM a\nCOPY --foo=1 a b\n",
                "dockerfile parse error on line 2: unknown flag: --foo (did you mean from?)",
            ),
            ("FROM a\nSHELL a\n", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"),
            (
                "FROM a\nONBUILD ONBUILD RUN x\n",
                "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            ),
            (
                "FROM a\nCOPY a\n",
                "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. \
                 Destination could not be determined",
            ),
        ] {
            assert_eq!(error(file), text);
        }
    }

    #[test]
    fn commands_have_two_forms() {
        let file = Dockerfile::parse(b"FROM a\nCMD [\"x\", \"y z\"]\nCMD ['x']\nENTRYPOINT a b\n").expect("valid");
        let forms: Vec<_> = file.stages[0]
            .instructions
            .iter()
            .map(|i| match &i.command {
                Command::Cmd(c) | Command::Entrypoint(c) => c.form.clone(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(forms[0], Form::Exec(vec!["x".to_owned(), "y z".to_owned()]));
        assert_eq!(forms[1], Form::Shell("['x']".to_owned()));
        assert_eq!(forms[2], Form::Shell("a b".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_files_never_panic(
            lines in proptest::collection::vec("(FROM|RUN|COPY|ADD|ENV|ARG|HEALTHCHECK|ONBUILD|SHELL)? ?[ -~]{0,30}", 0..12)
        ) {
            if let Ok(file) = Dockerfile::parse(lines.join("\n").as_bytes()) {
                let _ = file.checks();
            }
        }
    }
}
