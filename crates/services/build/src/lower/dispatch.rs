//! One instruction after another: what each does to the stage.

use std::collections::BTreeMap;

use wharf_dockerfile::{
    Add, Command, Expander, Form, Instruction, KeyValue, Mount, MountKind, Range, Rule, Run, Sharing,
};
use wharf_oci::image::{self as oci, Empty};
use wharf_proto_buildkit::pb;
use wharf_solver::{Output, describe};

use super::text::{
    chown_of, commit, copy_message, destination_path, device, is_opening, port_range, quoted, run_text, shown_health,
    summary, with_shell, within,
};
use super::{Lower, State, full_name, is_git, is_predefined, located};
use crate::BuildError;
use crate::copy::ModeChange;

/// The search path of images that have none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Done = Result<(), BuildError>;

impl Lower<'_> {
    pub(crate) fn instruction(&mut self, state: &mut State, instruction: &Instruction) -> Done {
        let range = instruction.range;
        match &instruction.command {
            Command::From { .. } => Ok(()),
            Command::Arg(list) => self.arg(state, list, range),
            Command::Env(list) => self.env(state, list, range),
            Command::Label(list) => self.label(state, list, range),
            Command::Run(run) => self.run(state, run, instruction),
            Command::Copy(add) => self.copy(state, add, instruction, false),
            Command::Add(add) => self.copy(state, add, instruction, true),
            Command::Workdir(path) => self.workdir(state, path, range),
            Command::Maintainer(name) => {
                state.config.author = name.clone();
                commit(state, format!("MAINTAINER {name}"), false);
                Ok(())
            }
            Command::Cmd(command) => {
                let args = with_shell(state, &command.form);
                commit(state, format!("CMD {}", quoted(&args)), false);
                state.config.config.cmd = Some(args);
                state.config.config.args_escaped = true;
                state.cmd_set = true;
                Ok(())
            }
            Command::Entrypoint(command) => {
                let args = with_shell(state, &command.form);
                commit(state, format!("ENTRYPOINT {}", quoted(&args)), false);
                state.config.config.entrypoint = Some(args);
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                Ok(())
            }
            Command::Expose(ports) => self.expose(state, ports, range),
            Command::Healthcheck(health) => {
                let check = oci::Healthcheck {
                    test: health.test.clone(),
                    interval: health.interval,
                    timeout: health.timeout,
                    start_period: health.start_period,
                    start_interval: health.start_interval,
                    retries: health.retries,
                };
                commit(state, format!("HEALTHCHECK {}", shown_health(&check)), false);
                state.config.config.healthcheck = Some(check);
                Ok(())
            }
            Command::Onbuild(text) => {
                state.config.config.on_build.push(text.clone());
                commit(state, format!("ONBUILD {text}"), false);
                Ok(())
            }
            Command::Shell(words) => {
                commit(state, format!("SHELL [{}]", words.join(" ")), false);
                state.config.config.shell = words.clone();
                Ok(())
            }
            Command::Stopsignal(text) => {
                let signal = self.expand(state, text, range)?;
                wharf_types::Signal::parse(&signal)
                    .map_err(|_| located(self.options, Some(range), format!("invalid signal: {signal}")))?;
                commit(state, format!("STOPSIGNAL {signal}"), false);
                state.config.config.stop_signal = signal;
                Ok(())
            }
            Command::User(text) => {
                let user = self.expand(state, text, range)?;
                commit(state, format!("USER {user}"), false);
                state.config.config.user = user;
                Ok(())
            }
            Command::Volume(list) => {
                let list = list.iter().map(|v| self.expand(state, v, range)).collect::<Result<Vec<_>, _>>()?;
                if list.iter().any(|v| v.trim().is_empty()) {
                    return Err(located(
                        self.options,
                        Some(range),
                        "VOLUME specified can not be an empty string".into(),
                    ));
                }
                commit(state, format!("VOLUME [{}]", list.join(" ")), false);
                state.config.config.volumes.extend(list.into_iter().map(|v| (v, Empty {})));
                Ok(())
            }
        }
    }

    pub(super) fn lookup(state: &State, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let env = state.config.config.env.iter().find_map(|e| e.strip_prefix(&prefix).map(str::to_owned));
        env.or_else(|| state.args.iter().rev().find(|(k, _)| k == name).and_then(|(_, v)| v.clone()))
    }

    /// Expands a text; variables that nobody defined are noted.
    fn expand(&self, state: &State, text: &str, range: Range) -> Result<String, BuildError> {
        self.expand_words(state, text, range).map(|e| e.text)
    }

    fn expand_words(&self, state: &State, text: &str, range: Range) -> Result<wharf_dockerfile::Expanded, BuildError> {
        let lookup = |name: &str| Self::lookup(state, name);
        let expander = Expander::new(self.file.directives.escape, &lookup);
        let failed = |e| located(self.options, Some(range), format!("failed to process {text:?}: {e}"));
        let out = expander.expand(text).map_err(failed)?;
        for name in &out.unset {
            if !state.args.iter().any(|(k, _)| k == name) && !is_predefined(name) {
                let message = format!("Usage of undefined variable '${name}'");
                self.checks.borrow_mut().warn(Rule::UndefinedVar, range, message);
            }
        }
        Ok(out)
    }

    fn arg(&mut self, state: &mut State, list: &[(String, Option<String>)], range: Range) -> Done {
        let mut shown = Vec::new();
        for (key, default) in list {
            let given = self.options.args.get(key).cloned();
            let value = match (given, default) {
                (Some(given), _) => Some(given),
                (None, Some(text)) => Some(self.expand(state, text, range)?),
                (None, None) => self.argument(key),
            };
            shown.push(match &value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            });
            state.args.push((key.clone(), value));
        }
        commit(state, format!("ARG {}", shown.join(" ")), false);
        Ok(())
    }

    fn pairs(&self, state: &State, list: &[KeyValue], range: Range) -> Result<Vec<(String, String)>, BuildError> {
        let expand = |text: &str| self.expand(state, text, range);
        list.iter().map(|p| Ok((expand(&p.key)?, expand(&p.value)?))).collect()
    }

    fn env(&mut self, state: &mut State, list: &[KeyValue], range: Range) -> Done {
        let pairs = self.pairs(state, list, range)?;
        let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        for ((key, _), entry) in pairs.iter().zip(&shown) {
            let prefix = format!("{key}=");
            match state.config.config.env.iter_mut().find(|e| e.starts_with(&prefix)) {
                Some(old) => old.clone_from(entry),
                None => state.config.config.env.push(entry.clone()),
            }
        }
        commit(state, format!("ENV {}", shown.join(" ")), false);
        Ok(())
    }

    fn label(&mut self, state: &mut State, list: &[KeyValue], range: Range) -> Done {
        let pairs = self.pairs(state, list, range)?;
        let shown: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        commit(state, format!("LABEL {}", shown.join(" ")), false);
        state.config.config.labels.extend(pairs);
        Ok(())
    }

    fn expose(&mut self, state: &mut State, list: &[String], range: Range) -> Done {
        let mut ports = Vec::new();
        for text in list {
            let words = self.expand_words(state, text, range)?.words;
            for word in words {
                self.checks.borrow_mut().expose(&word, range);
                let read = port_range(&word).map_err(|e| located(self.options, Some(range), e))?;
                ports.extend(read);
            }
        }
        ports.sort();
        ports.dedup();
        commit(state, format!("EXPOSE [{}]", ports.join(" ")), false);
        state.config.config.exposed_ports.extend(ports.into_iter().map(|p| (p, Empty {})));
        Ok(())
    }

    fn workdir(&mut self, state: &mut State, text: &str, range: Range) -> Done {
        let path = self.expand(state, text, range)?;
        if path.starts_with('/') {
            state.absolute_workdir = true;
        } else if !state.absolute_workdir {
            let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.checks.borrow_mut().warn(Rule::WorkdirRelativePath, range, message);
        }
        let whole = within(&state.config.config.working_dir, &path);
        state.config.config.working_dir.clone_from(&whole);
        // The name counts the step even where there is nothing to do.
        let name = self.prefixed(state, &format!("WORKDIR {text}"));
        let layer = whole != "/";
        if layer {
            let mkdir = pb::FileActionMkDir {
                path: whole.clone(),
                mode: 0o755,
                make_parents: true,
                timestamp: -1,
                // The folder belongs to whom the image's steps run as.
                owner: Some(&state.config.config.user).filter(|u| !u.is_empty()).map(|u| chown_of(u)),
            };
            self.file_operation(state, vec![(pb::FileActionAction::Mkdir(mkdir), None)], name, range);
        }
        commit(state, format!("WORKDIR {whole}"), layer);
        Ok(())
    }

    /// Adds an operation of several actions upon the stage's files; each may read another output.
    fn file_operation(
        &mut self,
        state: &mut State,
        actions: Vec<(pb::FileActionAction, Option<Output>)>,
        name: String,
        range: Range,
    ) {
        let files = state.files.clone();
        state.files = Some(self.actions(files, actions, name, range, state.ignore_cache));
    }

    fn actions(
        &mut self,
        base: Option<Output>,
        actions: Vec<(pb::FileActionAction, Option<Output>)>,
        name: String,
        range: Range,
        ignore_cache: bool,
    ) -> Output {
        let mut inputs: Vec<Output> = base.iter().cloned().collect();
        for (_, source) in &actions {
            if let Some(source) = source
                && !inputs.contains(source)
            {
                inputs.push(source.clone());
            }
        }
        let count = inputs.len();
        let last = actions.len() - 1;
        let number = |n: usize| i64::try_from(n).unwrap_or(-1);
        let list = actions.into_iter().enumerate().map(|(i, (action, source))| pb::FileAction {
            input: match (i, &base) {
                (0, Some(_)) => 0,
                (0, None) => -1,
                _ => number(count + i - 1),
            },
            secondary_input: source.and_then(|s| inputs.iter().position(|o| *o == s)).map_or(-1, number),
            output: if i == last { 0 } else { -1 },
            action: Some(action),
        });
        let op = pb::Op {
            op: Some(pb::OpOp::File(pb::FileOp { actions: list.collect() })),
            inputs: inputs.iter().map(|o| pb::Input { digest: o.digest.clone(), index: number(o.index) }).collect(),
            ..pb::Op::default()
        };
        let metadata = pb::OpMetadata { ignore_cache, ..describe(name) };
        let digest = self.maker.add(&op, metadata, Some((range.first, range.last)));
        Output { digest, index: 0 }
    }

    /// What `--from` names: a stage, a named context, an image.
    fn from(&mut self, name: &str, range: Range) -> Result<Option<Output>, BuildError> {
        if let Some(op) = self.named_context(name) {
            let digest = self.maker.add(&op, describe(format!("[context {name}] load")), None);
            return Ok(Some(Output { digest, index: 0 }));
        }
        if let Some(index) = self.file.stage(name) {
            return Ok(self.stage(index)?.files);
        }
        if name == "scratch" {
            return Ok(None);
        }
        let full = full_name(name);
        if wharf_types::Reference::parse(name).is_err() {
            let text = format!("failed to parse stage name {name:?}: invalid reference format");
            return Err(located(self.options, Some(range), text));
        }
        let op = self.image_source(&full, Some(&self.options.platform));
        let digest = self.maker.add(&op, describe(format!("FROM {full}")), Some((range.first, range.last)));
        Ok(Some(Output { digest, index: 0 }))
    }

    /// The main context; `paths` of it are wanted.
    fn context(&mut self, paths: &[String]) -> Output {
        self.context_paths.extend(paths.iter().cloned());
        let op = self.options.context.clone().unwrap_or_default();
        let digest = self.maker.add(&op, describe("[internal] load build context"), None);
        Output { digest, index: 0 }
    }

    fn copy(&mut self, state: &mut State, add: &Add, instruction: &Instruction, is_add: bool) -> Done {
        let range = instruction.range;
        let fail = |text: String| located(self.options, Some(range), text);
        let expand = |text: &str| self.expand(state, text, range);
        let sources = add.sources.iter().map(|s| expand(s)).collect::<Result<Vec<_>, _>>()?;
        let destination = expand(&add.destination)?;
        let chown = add.chown.as_deref().map(expand).transpose()?;
        let chmod = add.chmod.as_deref().map(expand).transpose()?;
        let checksum = add.checksum.as_deref().map(expand).transpose()?;
        let from = add.from.as_deref().map(expand).transpose()?;
        let mut excludes = add.excludes.iter().map(|s| expand(s)).collect::<Result<Vec<_>, _>>()?;
        excludes.retain(|e| !e.is_empty());
        if sources.len() + add.files.len() > 1
            && !destination.ends_with('/')
            && destination != "."
            && !destination.ends_with("/.")
        {
            let name = if is_add { "ADD" } else { "COPY" };
            return Err(fail(format!(
                "When using {name} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        if let Some(mode) = &chmod {
            ModeChange::parse(mode).map_err(|_| {
                fail(format!("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"))
            })?;
        }
        let place = destination_path(&state.config.config.working_dir, &destination);
        let template = pb::FileActionCopy {
            dest: place,
            owner: chown.as_deref().map(chown_of),
            mode: chmod.as_deref().and_then(|m| i32::from_str_radix(m, 8).ok()).unwrap_or(-1),
            mode_str: chmod.clone().filter(|m| !m.bytes().all(|b| b.is_ascii_digit())).unwrap_or_default(),
            follow_symlink: true,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            timestamp: -1,
            exclude_patterns: excludes,
            ..pb::FileActionCopy::default()
        };
        let message = copy_message(is_add, &sources, add, &destination, chown.as_deref(), chmod.as_deref());
        let mut actions = Vec::new();
        for source in &sources {
            let action =
                match is_add && (source.starts_with("http://") || source.starts_with("https://") || is_git(source)) {
                    true => self.remote(source, add, &template, checksum.as_deref(), range)?,
                    false => self.local_source(state, source, add, &template, from.as_deref(), is_add, range)?,
                };
            actions.push(action);
        }
        for file in &add.files {
            let content = if file.expand { self.heredoc(state, &file.content, range)? } else { file.content.clone() };
            let make = pb::FileActionMkFile {
                path: format!("/{}", file.name),
                mode: 0o644,
                data: content.into_bytes(),
                timestamp: -1,
                ..pb::FileActionMkFile::default()
            };
            let made = self.actions(
                None,
                vec![(pb::FileActionAction::Mkfile(make), None)],
                format!("[internal] preparing inline document {}", file.name),
                range,
                false,
            );
            let copy = pb::FileActionCopy { src: format!("/{}", file.name), allow_wildcard: false, ..template.clone() };
            actions.push((pb::FileActionAction::Copy(copy), Some(made)));
        }
        let name = self.prefixed(state, &instruction.text);
        if add.link && state.files.is_some() {
            let alone = self.actions(None, actions, name.clone(), range, state.ignore_cache);
            state.files = Some(self.merge(state, alone, name, range));
        } else {
            self.file_operation(state, actions, name, range);
        }
        commit(state, message, true);
        if let Some(last) = state.config.history.last_mut() {
            last.created_by.push_str(" # buildkit");
        }
        Ok(())
    }

    fn merge(&mut self, state: &State, upper: Output, name: String, range: Range) -> Output {
        let inputs: Vec<Output> = state.files.iter().cloned().chain([upper]).collect();
        let number = |n: usize| i64::try_from(n).unwrap_or(-1);
        let merge = pb::MergeOp { inputs: (0..inputs.len()).map(|i| pb::MergeInput { input: number(i) }).collect() };
        let op = pb::Op {
            op: Some(pb::OpOp::Merge(merge)),
            inputs: inputs.iter().map(|o| pb::Input { digest: o.digest.clone(), index: number(o.index) }).collect(),
            ..pb::Op::default()
        };
        let digest = self.maker.add(&op, describe(format!("LINK {name}")), Some((range.first, range.last)));
        Output { digest, index: 0 }
    }

    #[allow(clippy::too_many_arguments, reason = "what a source is follows from all of them, and nothing else does")]
    fn local_source(
        &mut self,
        state: &State,
        source: &str,
        add: &Add,
        template: &pb::FileActionCopy,
        from: Option<&str>,
        is_add: bool,
        range: Range,
    ) -> Result<(pb::FileActionAction, Option<Output>), BuildError> {
        let _ = state;
        let mut copy = template.clone();
        let mut path = format!("/{}", source.trim_start_matches('/'));
        if add.parents {
            // What stands before `/./` is not part of the names at the destination.
            let (base, rest) = path.split_once("/./").unwrap_or(("", path.trim_start_matches('/')));
            copy.include_patterns = vec![wharf_dockerfile::ignore::clean(rest)];
            copy.create_dest_path = true;
            path = format!("{base}/");
            if !copy.dest.ends_with('/') {
                copy.dest.push('/');
            }
        }
        let clean = wharf_dockerfile::ignore::clean(&path);
        copy.attempt_unpack_docker_compatibility = is_add && add.unpack.unwrap_or(true);
        copy.src.clone_from(&clean);
        let input = match from {
            Some(name) => self.from(name, range)?,
            None => {
                if let Ok(ignore) = wharf_dockerfile::ignore::Patterns::new(&self.options.ignore)
                    && !wharf_dockerfile::ignore::has_wildcard(&clean)
                    && clean != "/"
                    && ignore.matches(clean.trim_start_matches('/'))
                {
                    let verb = if is_add { "Add" } else { "Copy" };
                    let message = format!(
                        "Attempting to {verb} file {:?} that is excluded by .dockerignore",
                        clean.trim_start_matches('/')
                    );
                    self.checks.borrow_mut().warn(Rule::CopyIgnoredFile, range, message);
                }
                let wanted = if add.parents { "/".to_owned() } else { clean };
                Some(self.context(&[wanted]))
            }
        };
        Ok((pb::FileActionAction::Copy(copy), input))
    }

    fn remote(
        &mut self,
        source: &str,
        add: &Add,
        template: &pb::FileActionCopy,
        checksum: Option<&str>,
        range: Range,
    ) -> Result<(pb::FileActionAction, Option<Output>), BuildError> {
        let mut attrs = BTreeMap::new();
        let mut copy = pb::FileActionCopy { allow_wildcard: false, ..template.clone() };
        let identifier = if is_git(source) {
            attrs.insert("git.fullurl".to_owned(), source.to_owned());
            if add.keep_git_dir == Some(true) {
                attrs.insert("git.keepgitdir".to_owned(), "true".to_owned());
            }
            copy.src = "/".to_owned();
            format!("git://{}", source.split("://").nth(1).unwrap_or(source))
        } else {
            let path = source.split(['?', '#']).next().unwrap_or_default();
            let name = path.splitn(4, '/').nth(3).unwrap_or_default().rsplit('/').next().unwrap_or_default();
            let name = if name.is_empty() { "__unnamed__" } else { name };
            if name == "__unnamed__" && !copy.dest.ends_with('/') {
                // The destination names the file.
            } else if name == "__unnamed__" {
                let text = format!("cannot determine filename for source: {source}");
                return Err(located(self.options, Some(range), text));
            }
            if let Some(checksum) = checksum {
                attrs.insert("http.checksum".to_owned(), checksum.to_owned());
            }
            attrs.insert("http.filename".to_owned(), name.to_owned());
            copy.src = format!("/{name}");
            copy.attempt_unpack_docker_compatibility = add.unpack == Some(true);
            source.to_owned()
        };
        let op = pb::Op { op: Some(pb::OpOp::Source(pb::SourceOp { identifier, attrs })), ..pb::Op::default() };
        let digest = self.maker.add(&op, describe(source), Some((range.first, range.last)));
        Ok((pb::FileActionAction::Copy(copy), Some(Output { digest, index: 0 })))
    }

    /// Expands a body: quotes mean nothing in it.
    fn heredoc(&self, state: &State, text: &str, range: Range) -> Result<String, BuildError> {
        let lookup = |name: &str| Self::lookup(state, name);
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            // Outside of variables a quote is a character like any other.
            let escaped: String = line
                .chars()
                .flat_map(|c| match c {
                    '\'' | '"' => vec!['\\', c],
                    c => vec![c],
                })
                .collect();
            let expander = Expander::new('\\', &lookup);
            let done = expander.expand(&escaped);
            out.push_str(&done.map_err(|e| located(self.options, Some(range), e.to_string()))?.text);
        }
        Ok(out)
    }

    fn run(&mut self, state: &mut State, run: &Run, instruction: &Instruction) -> Done {
        let range = instruction.range;
        let mut mounts = vec![pb::Mount { input: -1, dest: "/".to_owned(), output: 0, ..pb::Mount::default() }];
        let mut inputs: Vec<Output> = Vec::new();
        if let Some(files) = &state.files {
            inputs.push(files.clone());
            mounts[0].input = 0;
        }
        let mut shown = instruction.text.clone();
        let args = match (&run.form, run.heredocs.as_slice()) {
            (Form::Exec(args), _) => args.clone(),
            (form @ Form::Shell(_), []) => with_shell(state, form),
            (Form::Shell(line), [only]) if is_opening(line) && only.content.starts_with("#!") => {
                let make = pb::FileActionMkFile {
                    path: format!("/{}", only.name),
                    mode: 0o755,
                    data: only.content.clone().into_bytes(),
                    timestamp: -1,
                    ..pb::FileActionMkFile::default()
                };
                let name = format!("[internal] preparing inline document {}", only.name);
                let made = self.actions(None, vec![(pb::FileActionAction::Mkfile(make), None)], name, range, false);
                mounts.push(pb::Mount {
                    input: i64::try_from(inputs.len()).unwrap_or(0),
                    dest: "/dev/pipes/".to_owned(),
                    output: -1,
                    readonly: true,
                    ..pb::Mount::default()
                });
                inputs.push(made);
                shown = format!("{shown} ({})", summary(&only.content));
                vec![format!("/dev/pipes/{}", only.name)]
            }
            (Form::Shell(line), [only]) if is_opening(line) => {
                shown = format!("{shown} ({})", summary(&only.content));
                with_shell(state, &Form::Shell(only.content.clone()))
            }
            (Form::Shell(line), all) => {
                let mut whole = line.clone();
                for heredoc in all {
                    whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
                }
                with_shell(state, &Form::Shell(whole))
            }
        };
        let mut env = state.config.config.env.clone();
        let named = |env: &[String], key: &str| env.iter().any(|e| e.split('=').next() == Some(key));
        for (key, value) in &state.args {
            if let Some(value) = value
                && !named(&state.config.config.env, key)
            {
                env.retain(|e| e.split('=').next() != Some(key.as_str()));
                env.push(format!("{key}={value}"));
            }
        }
        let (secret_env, agent) = self.run_mounts(state, run, range, &mut mounts, &mut inputs)?;
        if let Some(agent) = agent {
            env.push(format!("SSH_AUTH_SOCK={agent}"));
        }
        let op = self.exec_operation(state, run, args.clone(), env, mounts, secret_env, &inputs);
        let name = self.prefixed(state, &shown);
        let metadata = pb::OpMetadata { ignore_cache: state.ignore_cache, ..describe(name) };
        let digest = self.maker.add(&op, metadata, Some((range.first, range.last)));
        state.files = Some(Output { digest, index: 0 });
        let text = run_text(state, &args);
        commit(state, format!("RUN {text} # buildkit"), true);
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "an operation is made of all of them")]
    fn exec_operation(
        &self,
        state: &State,
        run: &Run,
        args: Vec<String>,
        env: Vec<String>,
        mounts: Vec<pb::Mount>,
        secretenv: Vec<pb::SecretEnv>,
        inputs: &[Output],
    ) -> pb::Op {
        let options = self.options;
        let network = match run.network.as_deref().unwrap_or(options.network.as_str()) {
            "host" => pb::NetMode::Host,
            "none" => pb::NetMode::None,
            _ => pb::NetMode::Unset,
        };
        let proxy = |name: &str| {
            let find = |n: &str| options.args.get(n).cloned();
            find(name).or_else(|| find(&name.to_ascii_lowercase())).unwrap_or_default()
        };
        let proxies = pb::ProxyEnv {
            http_proxy: proxy("HTTP_PROXY"),
            https_proxy: proxy("HTTPS_PROXY"),
            ftp_proxy: proxy("FTP_PROXY"),
            no_proxy: proxy("NO_PROXY"),
            all_proxy: proxy("ALL_PROXY"),
        };
        let meta = pb::Meta {
            args,
            env,
            cwd: state.config.config.working_dir.clone(),
            user: state.config.config.user.clone(),
            proxy_env: Some(proxies).filter(|p| *p != pb::ProxyEnv::default()),
            extra_hosts: options.hosts.iter().map(|(h, ip)| pb::HostIP { host: h.clone(), ip: ip.clone() }).collect(),
            hostname: options.hostname.clone(),
            ulimit: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            ..pb::Meta::default()
        };
        let mut mounts = mounts;
        if options.shm_size > 0 {
            mounts.push(pb::Mount {
                input: -1,
                output: -1,
                dest: "/dev/shm".to_owned(),
                mount_type: pb::MountType::Tmpfs as i32,
                tmpfs_opt: Some(pb::TmpfsOpt { size: options.shm_size }),
                ..pb::Mount::default()
            });
        }
        let insecure = run.security.as_deref() == Some("insecure");
        let exec = pb::ExecOp {
            meta: Some(meta),
            mounts,
            network: network as i32,
            security: if insecure { pb::SecurityMode::Insecure as i32 } else { 0 },
            secretenv,
            cdi_devices: run.devices.iter().map(|d| device(d)).collect(),
        };
        let input = |o: &Output| pb::Input { digest: o.digest.clone(), index: i64::try_from(o.index).unwrap_or(0) };
        pb::Op {
            op: Some(pb::OpOp::Exec(exec)),
            inputs: inputs.iter().map(input).collect(),
            platform: Some(super::to_platform(&options.platform)),
            ..pb::Op::default()
        }
    }

    fn run_mounts(
        &mut self,
        state: &State,
        run: &Run,
        range: Range,
        mounts: &mut Vec<pb::Mount>,
        inputs: &mut Vec<Output>,
    ) -> Result<(Vec<pb::SecretEnv>, Option<String>), BuildError> {
        let expand = |text: &str| self.expand(state, text, range).map_err(|e| e.to_string());
        let list = run.mounts(&expand).map_err(|e| located(self.options, Some(range), e))?;
        let mut secrets = Vec::new();
        let mut agent = None;
        for mount in list {
            let mut made = self.mount(&mount, mounts.len(), range, inputs)?;
            match mount.kind {
                MountKind::Ssh => agent = agent.or(Some(made.dest.clone())),
                MountKind::Secret => {
                    if let Some(name) = &mount.env {
                        let id = made.secret_opt.as_ref().map(|s| s.id.clone()).unwrap_or_default();
                        secrets.push(pb::SecretEnv { id, name: name.clone(), optional: !mount.required });
                        if mount.target.is_none() {
                            continue;
                        }
                    }
                }
                _ => {}
            }
            made.output = -1;
            mounts.push(made);
        }
        Ok((secrets, agent))
    }

    fn mount(
        &mut self,
        mount: &Mount,
        number: usize,
        range: Range,
        inputs: &mut Vec<Output>,
    ) -> Result<pb::Mount, BuildError> {
        let target = mount.target.clone().unwrap_or_default();
        let mut made = pb::Mount { input: -1, dest: target.clone(), ..pb::Mount::default() };
        let mut join = |source: Option<Output>| {
            source.map_or(-1, |source| {
                let at = inputs.iter().position(|i| *i == source).unwrap_or_else(|| {
                    inputs.push(source);
                    inputs.len() - 1
                });
                i64::try_from(at).unwrap_or(-1)
            })
        };
        match mount.kind {
            MountKind::Bind => {
                let selector = wharf_dockerfile::ignore::clean(&format!("/{}", mount.source.as_deref().unwrap_or("")));
                let source = match &mount.from {
                    Some(name) => self.from(name, range)?,
                    None => Some(self.context(std::slice::from_ref(&selector))),
                };
                made.input = join(source);
                made.selector = selector;
                made.readonly = mount.read_only.unwrap_or(true);
            }
            MountKind::Cache => {
                made.mount_type = pb::MountType::Cache as i32;
                let sharing = match mount.sharing {
                    Sharing::Shared => pb::CacheSharingOpt::Shared,
                    Sharing::Private => pb::CacheSharingOpt::Private,
                    Sharing::Locked => pb::CacheSharingOpt::Locked,
                };
                let id = mount
                    .id
                    .clone()
                    .filter(|i| !i.is_empty())
                    .unwrap_or_else(|| wharf_dockerfile::ignore::clean(&target));
                made.cache_opt = Some(pb::CacheOpt { id, sharing: sharing as i32 });
                made.readonly = mount.read_only.unwrap_or(false);
                let source = match &mount.from {
                    Some(name) => self.from(name, range)?,
                    None if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() => {
                        let id = |n: u32| Some(pb::UserOpt { user: Some(pb::UserOptUser::ByID(n)) });
                        let owner =
                            pb::ChownOpt { user: id(mount.uid.unwrap_or(0)), group: id(mount.gid.unwrap_or(0)) };
                        let mkdir = pb::FileActionMkDir {
                            path: "/cache".to_owned(),
                            mode: mount.mode.unwrap_or(0o755).cast_signed(),
                            owner: Some(owner),
                            timestamp: -1,
                            ..pb::FileActionMkDir::default()
                        };
                        made.selector = "/cache".to_owned();
                        let name = "[internal] settings cache mount permissions".to_owned();
                        Some(self.actions(None, vec![(pb::FileActionAction::Mkdir(mkdir), None)], name, range, false))
                    }
                    None => None,
                };
                if let Some(path) = &mount.source {
                    made.selector = wharf_dockerfile::ignore::clean(&format!("/{path}"));
                }
                made.input = join(source);
            }
            MountKind::Tmpfs => {
                made.mount_type = pb::MountType::Tmpfs as i32;
                made.tmpfs_opt = Some(pb::TmpfsOpt { size: mount.size.unwrap_or(0) });
            }
            MountKind::Secret => {
                let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
                let id = mount
                    .id
                    .clone()
                    .or_else(|| mount.source.as_deref().map(last))
                    .or_else(|| mount.target.as_deref().map(last));
                let id = id.unwrap_or_default();
                if target.is_empty() {
                    made.dest = format!("/run/secrets/{}", last(&id));
                }
                made.mount_type = pb::MountType::Secret as i32;
                made.secret_opt = Some(pb::SecretOpt {
                    id,
                    uid: mount.uid.unwrap_or(0),
                    gid: mount.gid.unwrap_or(0),
                    mode: mount.mode.unwrap_or(0o400),
                    optional: !mount.required,
                });
            }
            MountKind::Ssh => {
                if target.is_empty() {
                    made.dest = format!("/run/buildkit/ssh_agent.{}", number.saturating_sub(1));
                }
                made.mount_type = pb::MountType::Ssh as i32;
                made.ssh_opt = Some(pb::SSHOpt {
                    id: mount.id.clone().unwrap_or_default(),
                    uid: mount.uid.unwrap_or(0),
                    gid: mount.gid.unwrap_or(0),
                    mode: mount.mode.unwrap_or(0o600),
                    optional: !mount.required,
                });
            }
        }
        Ok(made)
    }
}
