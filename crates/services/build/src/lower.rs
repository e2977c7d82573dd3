//! From a Dockerfile to a graph: stages, scopes of arguments, base images, and which stages are needed at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use wharf_dockerfile::{Checks, Command, Dockerfile, Expander, Instruction, Line, Range, Rule, parse_instruction};
use wharf_oci::image as oci;
use wharf_proto_buildkit::pb;
use wharf_solver::{Maker, Output, describe};

use crate::BuildError;
use crate::error::Place;

pub(crate) mod dispatch;
mod text;

/// The variables that every build knows without declaring them.
const PREDEFINED: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// A base image's configuration.
#[derive(Clone, Debug)]
pub struct BaseConfig {
    /// The configuration.
    pub config: oci::Image,
    /// The image's digest, for people.
    pub digest: String,
}

/// What a build is asked for, apart from the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--target`.
    pub target: String,
    /// The platform to build for.
    pub platform: oci::Platform,
    /// This machine's platform.
    pub build_platform: oci::Platform,
    /// Whether steps show their platform.
    pub show_platform: bool,
    /// `--build-context`: name → what it is.
    pub contexts: BTreeMap<String, String>,
    /// `--no-cache` (an empty list), `--no-cache-filter`.
    pub no_cache: Option<Vec<String>>,
    /// `--network`.
    pub network: String,
    /// `--add-host`.
    pub hosts: Vec<(String, String)>,
    /// `--ulimit`.
    pub ulimits: Vec<pb::Ulimit>,
    /// `--shm-size`.
    pub shm_size: i64,
    /// `--cgroup-parent`.
    pub cgroup_parent: String,
    /// `--hostname`.
    pub hostname: String,
    /// `--pull`.
    pub pull: bool,
    /// What the main context is, as an operation.
    pub context: Option<pb::Op>,
    /// Patterns of `.dockerignore`.
    pub ignore: Vec<String>,
    /// The Dockerfile's name and text, for places in it.
    pub file_name: String,
    /// The text.
    pub file_text: Vec<u8>,
}

/// A stage while it is lowered.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The files; nothing is the empty file system.
    pub files: Option<Output>,
    /// What the image will be.
    pub config: oci::Image,
    /// Arguments declared in the stage, in order.
    pub args: Vec<(String, Option<String>)>,
    cmd_set: bool,
    name: String,
    index: usize,
    total: usize,
    absolute_workdir: bool,
    ignore_cache: bool,
}

/// What a file became.
#[derive(Debug)]
pub struct Lowered {
    /// The definition of the result.
    pub definition: pb::Definition,
    /// The image's configuration, history included.
    pub config: oci::Image,
    /// What the checks found.
    pub checks: Checks,
}

/// Why lowering stopped.
#[derive(Debug)]
pub enum Stop {
    /// Base images that must be looked up first.
    Needs(Vec<(usize, String)>),
    /// The file is wrong.
    Error(BuildError),
}

impl From<BuildError> for Stop {
    fn from(error: BuildError) -> Self {
        Stop::Error(error)
    }
}

/// Lowers one file for one platform.
pub struct Lower<'a> {
    pub(crate) file: &'a Dockerfile,
    pub(crate) options: &'a Options,
    /// Configurations of the base images by stage.
    pub(crate) bases: &'a HashMap<usize, BaseConfig>,
    pub(crate) maker: Maker,
    pub(crate) checks: RefCell<Checks>,
    states: HashMap<usize, State>,
    open: BTreeSet<usize>,
    needs: Vec<(usize, String)>,
    globals: Vec<(String, Option<String>)>,
    pub(crate) context_paths: BTreeSet<String>,
    pub(crate) target: usize,
}

impl<'a> Lower<'a> {
    /// Prepares.
    ///
    /// # Errors
    /// The target is not there; a global argument cannot be expanded.
    pub fn new(
        file: &'a Dockerfile,
        options: &'a Options,
        bases: &'a HashMap<usize, BaseConfig>,
    ) -> Result<Self, BuildError> {
        let checks = file.checks().map_err(|e| located(options, e.range(), e.to_string()))?;
        let target = match options.target.as_str() {
            "" => file.stages.len() - 1,
            name => file
                .stage(name)
                .ok_or_else(|| BuildError::invalid(format!("target stage {name:?} could not be found")))?,
        };
        let mut lower = Self {
            file,
            options,
            bases,
            maker: Maker::default(),
            checks: RefCell::new(checks),
            states: HashMap::new(),
            open: BTreeSet::new(),
            needs: Vec::new(),
            globals: Vec::new(),
            context_paths: BTreeSet::new(),
            target,
        };
        lower.read_globals()?;
        Ok(lower)
    }

    /// Makes the definition.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn finish(mut self) -> Result<Lowered, Stop> {
        // Stages that are not needed are read all the same, for what the checks find in them.
        self.expand_bases()?;
        // The paths that are wanted of the context are known only at the end, and the context is an input of what
        // stands on it: so everything is done twice, the second time with the paths.
        let state = self.stage(self.target)?;
        if !self.needs.is_empty() {
            return Err(Stop::Needs(self.needs));
        }
        let mut config = state.config.clone();
        for (key, value) in &self.options.labels {
            config.config.labels.insert(key.clone(), value.clone());
        }
        let definition = match &state.files {
            Some(files) => self.maker.finish(files, &self.options.file_name, &self.options.file_text),
            None => pb::Definition::default(),
        };
        Ok(Lowered { definition, config, checks: self.checks.into_inner() })
    }

    /// The paths of the context that are wanted; known once everything was lowered.
    pub fn wanted_paths(mut self) -> Result<BTreeSet<String>, Stop> {
        self.stage(self.target)?;
        if !self.needs.is_empty() {
            return Err(Stop::Needs(self.needs));
        }
        Ok(self.context_paths)
    }

    fn platform_args(&self) -> Vec<(String, String)> {
        let name = |p: &oci::Platform| match p.variant.as_str() {
            "" => format!("{}/{}", p.os, p.architecture),
            variant => format!("{}/{}/{variant}", p.os, p.architecture),
        };
        let mut list = Vec::new();
        for (prefix, p) in [("BUILD", &self.options.build_platform), ("TARGET", &self.options.platform)] {
            list.push((format!("{prefix}PLATFORM"), name(p)));
            list.push((format!("{prefix}OS"), p.os.clone()));
            list.push((format!("{prefix}OSVERSION"), p.os_version.clone()));
            list.push((format!("{prefix}ARCH"), p.architecture.clone()));
            list.push((format!("{prefix}VARIANT"), p.variant.clone()));
        }
        let stage = self.file.stages[self.target].written_name.clone();
        let target = if self.options.target.is_empty() { "default".to_owned() } else { self.options.target.clone() };
        list.push(("TARGETSTAGE".to_owned(), stage.filter(|_| !self.options.target.is_empty()).unwrap_or(target)));
        list
    }

    fn read_globals(&mut self) -> Result<(), BuildError> {
        for (key, value) in self.platform_args() {
            self.globals.push((key, Some(value)));
        }
        for instruction in &self.file.global {
            let Command::Arg(list) = &instruction.command else { continue };
            for (key, default) in list {
                let value = match self.options.args.get(key) {
                    Some(given) => Some(given.clone()),
                    None => match default {
                        Some(text) => Some(self.expand_global(text, instruction.range)?.0),
                        // A predefined one keeps its value.
                        None => self.globals.iter().rev().find(|(k, _)| k == key).and_then(|(_, v)| v.clone()),
                    },
                };
                self.globals.push((key.clone(), value));
            }
        }
        Ok(())
    }

    fn global(&self, name: &str) -> Option<String> {
        self.globals.iter().rev().find(|(k, _)| k == name).and_then(|(_, v)| v.clone())
    }

    fn expand_global(&self, text: &str, range: Range) -> Result<(String, BTreeSet<String>), BuildError> {
        let lookup = |name: &str| self.global(name);
        let out = Expander::new(self.file.directives.escape, &lookup).expand(text);
        let out = out.map_err(|e| located(self.options, Some(range), format!("failed to process {text:?}: {e}")))?;
        Ok((out.text, out.unset))
    }

    /// The expanded name of a stage's base.
    ///
    /// # Errors
    /// It is empty or cannot be expanded.
    pub fn base_name(&self, index: usize) -> Result<String, BuildError> {
        let stage = &self.file.stages[index];
        let (name, unset) = self.expand_global(&stage.base, stage.from.range)?;
        for missing in unset {
            if !self.globals.iter().any(|(k, _)| *k == missing) {
                let message = format!("FROM argument '{missing}' is not declared");
                self.checks.borrow_mut().warn(Rule::UndefinedArgInFrom, stage.from.range, message);
            }
        }
        if name.is_empty() {
            let text = format!("base name ({}) should not be blank", stage.base);
            return Err(located(self.options, Some(stage.from.range), text));
        }
        Ok(name)
    }

    /// Checks the base names of all stages, also of those that are not needed.
    fn expand_bases(&self) -> Result<(), BuildError> {
        for (index, stage) in self.file.stages.iter().enumerate() {
            self.base_name(index)?;
            // What would the name be with the defaults alone?
            if !stage.base.contains('$') {
                continue;
            }
            let mut defaults: HashMap<String, String> = self.platform_args().into_iter().collect();
            for instruction in &self.file.global {
                let Command::Arg(list) = &instruction.command else { continue };
                for (key, value) in list {
                    let lookup = |n: &str| defaults.get(n).cloned();
                    let value =
                        value.as_ref().and_then(|v| Expander::new(self.file.directives.escape, &lookup).expand(v).ok());
                    if let Some(value) = value {
                        defaults.insert(key.clone(), value.text);
                    }
                }
            }
            let lookup = |n: &str| defaults.get(n).cloned();
            let text = Expander::new(self.file.directives.escape, &lookup).expand(&stage.base);
            let valid = text.is_ok_and(|t| t.text == "scratch" || wharf_types::Reference::parse(&t.text).is_ok());
            if !valid {
                let message =
                    format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                self.checks.borrow_mut().warn(Rule::InvalidDefaultArgInFrom, stage.from.range, message);
            }
        }
        Ok(())
    }

    /// A stage's state, lowered on first need.
    pub(crate) fn stage(&mut self, index: usize) -> Result<State, BuildError> {
        if let Some(state) = self.states.get(&index) {
            return Ok(state.clone());
        }
        let file = self.file;
        let stage = &file.stages[index];
        let range = stage.from.range;
        if !self.open.insert(index) {
            let name = stage.name.clone().unwrap_or_else(|| index.to_string());
            return Err(located(self.options, Some(range), format!("circular dependency detected on stage: {name}")));
        }
        let base = self.base_name(index)?;
        let mut state = self.base_state(index, &base)?;
        state.args.clear();
        state.cmd_set = false;
        let several = file.stages.len() > 1;
        state.name = match &stage.name {
            Some(name) => name.clone(),
            None if several => format!("stage-{index}"),
            None => String::new(),
        };
        state.ignore_cache = match &self.options.no_cache {
            None => false,
            Some(list) if list.is_empty() => true,
            Some(list) => list.iter().any(|n| n.eq_ignore_ascii_case(&state.name) || *n == index.to_string()),
        };
        let triggers = std::mem::take(&mut state.config.config.on_build);
        let mut instructions = Vec::new();
        for trigger in &triggers {
            let line = Line { text: trigger.clone(), range, ..Line::default() };
            let parsed = parse_instruction(&line, '\\').map_err(|e| located(self.options, e.range(), e.to_string()))?;
            instructions.push(parsed);
        }
        instructions.extend(stage.instructions.iter().cloned());
        let counts = |i: &&Instruction| {
            matches!(i.command, Command::Add(_) | Command::Copy(_) | Command::Run(_) | Command::Workdir(_))
        };
        let from_counts = usize::from(state.files.is_some() && file.stage_of(&base, index).is_none());
        state.total = instructions.iter().filter(counts).count() + from_counts;
        self.name_base(&mut state, index, &base);
        for instruction in &instructions {
            self.instruction(&mut state, instruction)?;
        }
        self.open.remove(&index);
        self.states.insert(index, state.clone());
        Ok(state)
    }

    /// Where a stage starts: an earlier stage, nothing, a named context, an image.
    fn base_state(&mut self, index: usize, base: &str) -> Result<State, BuildError> {
        if let Some(earlier) = self.file.stage_of(base, index) {
            let state = self.stage(earlier)?;
            return Ok(State { index: 0, total: 0, ..state });
        }
        if base == "scratch" && !self.options.contexts.contains_key("scratch") {
            return Ok(State { config: self.empty_image(), ..State::default() });
        }
        let Some(known) = self.bases.get(&index) else {
            self.needs.push((index, base.to_owned()));
            // Goes on, so that all that is missing is found at once.
            return Ok(State { config: self.empty_image(), ..State::default() });
        };
        let mut config = known.config.clone();
        if !config.config.env.iter().any(|e| e.starts_with("PATH=")) {
            config.config.env.push(format!("PATH={}", dispatch::PATH));
        }
        let absolute = config.config.working_dir.starts_with('/');
        Ok(State { config, absolute_workdir: absolute, ..State::default() })
    }

    /// Adds the operation that loads a stage's base, under the stage's name.
    fn name_base(&mut self, state: &mut State, index: usize, base: &str) {
        let Some(known) = self.bases.get(&index) else { return };
        if self.file.stage_of(base, index).is_some() {
            return;
        }
        state.total += 1;
        let (op, shown) = self.source_of(index, base, known);
        let name = self.prefixed(state, &format!("FROM {shown}"));
        let range = self.file.stages[index].from.range;
        let digest = self.maker.add(&op, describe(name), Some((range.first, range.last)));
        // An image without layers is the empty file system.
        state.files = Some(Output { digest, index: 0 });
    }

    fn source_of(&self, index: usize, base: &str, known: &BaseConfig) -> (pb::Op, String) {
        if let Some(op) = self.named_context(base) {
            return (op, base.to_owned());
        }
        let full = full_name(base);
        let platform = self.platform_of(index);
        let shown = if full.contains('@') || known.digest.is_empty() {
            full.clone()
        } else {
            format!("{full}@{}", known.digest)
        };
        (self.image_source(&full, Some(&platform)), shown)
    }

    /// The platform that a stage's base is wanted for.
    pub fn platform_of(&self, index: usize) -> oci::Platform {
        let stage = &self.file.stages[index];
        let text = stage.platform.as_ref().and_then(|p| self.expand_global(p, stage.from.range).ok());
        text.and_then(|(t, _)| parse_platform(&t)).unwrap_or_else(|| self.options.platform.clone())
    }

    pub(crate) fn image_source(&self, full: &str, platform: Option<&oci::Platform>) -> pb::Op {
        let mut attrs = BTreeMap::new();
        if self.options.pull {
            attrs.insert("image.resolvemode".to_owned(), "pull".to_owned());
        }
        let source = pb::SourceOp { identifier: format!("docker-image://{full}"), attrs };
        pb::Op { op: Some(pb::OpOp::Source(source)), platform: platform.map(to_platform), ..pb::Op::default() }
    }

    /// The operation of a named context.
    pub fn named_context(&self, name: &str) -> Option<pb::Op> {
        let contexts = &self.options.contexts;
        let text = contexts.get(name).or_else(|| contexts.get(&full_name(name)))?;
        Some(context_operation(name, text))
    }

    fn empty_image(&self) -> oci::Image {
        let config = oci::Config {
            env: vec![format!("PATH={}", dispatch::PATH)],
            working_dir: "/".to_owned(),
            ..oci::Config::default()
        };
        oci::Image { platform: self.options.platform.clone(), config, ..oci::Image::default() }
    }

    /// The name of a step as clients show it: `[build 2/5] RUN make`.
    pub(crate) fn prefixed(&self, state: &mut State, text: &str) -> String {
        state.index += 1;
        let mut out = String::from("[");
        if self.options.show_platform {
            let p = &self.options.platform;
            out.push_str(&format!("{}/{} ", p.os, p.architecture));
        }
        if !state.name.is_empty() {
            out.push_str(&state.name);
            out.push(' ');
        }
        let width = state.total.to_string().len();
        out.push_str(&format!("{:>width$}/{}] {text}", state.index, state.total));
        out
    }

    /// The value that an argument of a stage gets.
    pub(crate) fn argument(&self, key: &str) -> Option<String> {
        self.options.args.get(key).cloned().or_else(|| self.global(key))
    }
}

/// Stages by the name that a FROM or a `--from` says, before a given stage.
pub(crate) trait StageOf {
    /// The index.
    fn stage_of(&self, name: &str, before: usize) -> Option<usize>;
}

impl StageOf for Dockerfile {
    fn stage_of(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_ascii_lowercase();
        self.stages[..before].iter().rposition(|s| s.name.as_deref() == Some(&lower))
    }
}

/// What a named context's text stands for.
pub fn context_operation(name: &str, text: &str) -> pb::Op {
    let mut attrs = BTreeMap::new();
    let identifier = match text.strip_prefix("local:") {
        Some(local) => {
            attrs.insert("local.sharedkeyhint".to_owned(), format!("context:{name}"));
            format!("local://{local}")
        }
        None => match text.strip_prefix("docker-image://") {
            Some(image) => format!("docker-image://{}", full_name(image)),
            None if is_git(text) => {
                attrs.insert("git.fullurl".to_owned(), text.to_owned());
                format!("git://{}", text.split("://").nth(1).unwrap_or(text))
            }
            None => text.to_owned(),
        },
    };
    pb::Op { op: Some(pb::OpOp::Source(pb::SourceOp { identifier, attrs })), ..pb::Op::default() }
}

/// Whether an address is a git repository.
pub fn is_git(text: &str) -> bool {
    let address = text.split('#').next().unwrap_or_default();
    text.starts_with("git://") || text.starts_with("git@") || (text.contains("://") && address.ends_with(".git"))
}

/// The full name of an image, with its tag.
pub fn full_name(name: &str) -> String {
    match wharf_types::Reference::parse(name) {
        Ok(reference) => reference.with_default_tag().to_string(),
        Err(_) => name.to_owned(),
    }
}

/// Reads `linux/arm64/v8`.
pub fn parse_platform(text: &str) -> Option<oci::Platform> {
    let mut parts = text.split('/');
    let first = parts.next().filter(|p| !p.is_empty())?.to_ascii_lowercase();
    let (os, architecture) = match parts.next() {
        Some(second) => (first, second.to_ascii_lowercase()),
        None if first == "linux" => (first, wharf_image::this_platform().architecture),
        None => ("linux".to_owned(), first),
    };
    let variant = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("x86_64" | "x86-64", v) => ("amd64".to_owned(), v.to_owned()),
        ("aarch64", v) => ("arm64".to_owned(), v.to_owned()),
        ("arm64", "v8") => ("arm64".to_owned(), String::new()),
        ("i386" | "i686", v) => ("386".to_owned(), v.to_owned()),
        ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
        (a, v) => (a.to_owned(), v.to_owned()),
    };
    Some(oci::Platform { os, architecture, variant, ..oci::Platform::default() })
}

/// A platform in the protocol's form.
pub fn to_platform(platform: &oci::Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

/// A wrong file, with its place.
pub fn located(options: &Options, range: Option<Range>, text: String) -> BuildError {
    let position = |line: usize| Some(pb::Position { line: i32::try_from(line).unwrap_or(0), character: 0 });
    let place = range.map(|r| Place {
        info: pb::SourceInfo {
            filename: options.file_name.clone(),
            data: options.file_text.clone(),
            language: "Dockerfile".to_owned(),
            ..pb::SourceInfo::default()
        },
        ranges: vec![pb::Range { start: position(r.first), end: position(r.last) }],
    });
    BuildError::invalid(text).at(place)
}

/// Whether an argument is one of those that every step may use.
pub(crate) fn is_predefined(name: &str) -> bool {
    PREDEFINED.iter().any(|p| p.eq_ignore_ascii_case(name))
}
