//! The Dockerfile front end: reads file and ignore patterns from the client, looks base images up, lowers, evaluates.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use wharf_dockerfile::{Directives, Dockerfile, Range, ignore};
use wharf_error::Kind;
use wharf_oci::image as oci;
use wharf_proto_buildkit::pb;
use wharf_solver::{Graph, Maker, Output, describe, digest_of};

use crate::BuildError;
use crate::error::Place;
use crate::job::{Job, Value};
use crate::lower::{BaseConfig, Lower, Lowered, Options, Stop, context_operation, full_name, parse_platform};
use crate::progress::{Step, warn};
use crate::source;

/// The largest Dockerfile.
const FILE_LIMIT: u64 = 16 << 20;

/// What a build asks the front end for.
#[derive(Clone, Debug, Default)]
pub struct Frontend {
    /// `filename`, `target`, `build-arg:X`, … as BuildKit's clients send them.
    pub attrs: BTreeMap<String, String>,
    /// Definitions that stand for contexts.
    pub inputs: BTreeMap<String, pb::Definition>,
}

/// A result for one platform.
#[derive(Clone)]
pub struct Image {
    /// The platform.
    pub platform: oci::Platform,
    /// The files.
    pub value: Value,
    /// The configuration.
    pub config: oci::Image,
}

/// What the front end gives.
pub struct Outcome {
    /// One for each platform.
    pub images: Vec<Image>,
    /// For requests that build nothing: `result.json`, `result.txt`.
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// What was read.
enum Read {
    /// A file of the language that is built in.
    Own(Box<Input>),
    /// One that asks for another front end: the whole of its line, the image's name, and where it stands.
    Foreign(String, String, Option<Arc<Place>>),
}

/// The file and what belongs to it.
struct Input {
    file: Dockerfile,
    options: Options,
}

impl Frontend {
    fn attr(&self, name: &str) -> &str {
        self.attrs.get(name).map_or("", String::as_str)
    }

    fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let all = self.attrs.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.clone())));
        all.collect()
    }

    /// The front end that the file asks for, if it is not this one: the whole line, the image's name, and where it stands.
    fn foreign(&self, text: &[u8]) -> Option<(String, String, Option<Range>)> {
        // Who was asked for already and comes here wants this one.
        if self.attrs.contains_key("cmdline") {
            return None;
        }
        let (asked, range) = match self.attrs.get("build-arg:BUILDKIT_SYNTAX") {
            Some(name) => (name.clone(), None),
            // What is wrong with them is told when the file is read as a whole.
            None => Directives::of(text).ok()?.syntax.map(|(asked, range)| (asked, Some(range)))?,
        };
        let image = asked.split_whitespace().next()?.to_owned();
        (!is_own(&image)).then_some((asked, image, range))
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn solve(&self, job: &Arc<Job>) -> Result<Outcome, BuildError> {
        let input = match self.read(job).await? {
            Read::Own(input) => *input,
            Read::Foreign(command, image, place) => {
                let mut other = self.clone();
                other.attrs.insert("cmdline".to_owned(), command);
                other.attrs.insert("source".to_owned(), image);
                return crate::gateway::run(job, &other).await.map_err(|e| e.at(place.map(Arc::unwrap_or_clone)));
            }
        };
        match self.attr("requestid") {
            "" => {}
            "frontend.lint" => return self.lint(job, &input).await,
            "frontend.subrequests.describe" => return Ok(describe_requests()),
            "frontend.targets" => return Ok(list_targets(&input.file)),
            other => {
                return Err(BuildError::new(Kind::NotImplemented, format!("unsupported request {other}")));
            }
        }
        let platforms = self.platforms()?;
        let several = platforms.len() > 1 || self.attr("multi-platform") == "true";
        let mut images = Vec::new();
        for platform in platforms {
            let options = Options { platform: platform.clone(), show_platform: several, ..input.options.clone() };
            let lowered = self.lower(job, &input.file, &options).await?;
            self.tell(job, &lowered, &options)?;
            let graph = Graph::of(&lowered.definition).map_err(|e| BuildError::invalid(e.to_string()))?;
            let value = job.evaluate(&Arc::new(graph)).await?;
            images.push(Image { platform, value, config: lowered.config });
        }
        Ok(Outcome { images, metadata: BTreeMap::new() })
    }

    /// Does what is asked by the front end of that name.
    ///
    /// # Errors
    /// There is no such front end, or those of the one.
    pub async fn solve_as(&self, name: &str, job: &Arc<Job>) -> Result<Outcome, BuildError> {
        match name {
            "dockerfile.v0" => self.solve(job).await,
            "gateway.v0" => crate::gateway::run(job, self).await,
            other => Err(BuildError::invalid(format!("unsupported frontend {other}"))),
        }
    }

    fn platforms(&self) -> Result<Vec<oci::Platform>, BuildError> {
        let text = self.attr("platform");
        if text.is_empty() {
            return Ok(vec![wharf_image::this_platform()]);
        }
        let parse = |p: &str| {
            parse_platform(p).ok_or_else(|| BuildError::invalid(format!("failed to parse target platform {p}")))
        };
        text.split(',').map(|p| parse(p.trim())).collect()
    }

    /// A definition of one operation.
    pub(crate) fn only(op: &pb::Op, name: &str) -> pb::Definition {
        let mut maker = Maker::default();
        let digest = maker.add(op, describe(name), None);
        maker.finish(&Output { digest, index: 0 }, "", b"")
    }

    /// Reads one small tree of the client.
    async fn fetch(&self, job: &Arc<Job>, op: &pb::Op, name: &str) -> Result<Value, BuildError> {
        let graph = Graph::of(&Self::only(op, name)).map_err(|e| BuildError::invalid(e.to_string()))?;
        job.evaluate(&Arc::new(graph)).await
    }

    pub(crate) async fn input_value(&self, job: &Arc<Job>, name: &str) -> Option<Result<Value, BuildError>> {
        let definition = self.inputs.get(name)?;
        let graph = match Graph::of(definition) {
            Ok(graph) => graph,
            Err(e) => return Some(Err(BuildError::invalid(e.to_string()))),
        };
        Some(job.evaluate(&Arc::new(graph)).await)
    }

    fn local_op(&self, name: &str, hint: &str, follow: &[String], exclude: &[String]) -> pb::Op {
        let mut attrs = BTreeMap::new();
        attrs.insert("local.sharedkeyhint".to_owned(), hint.to_owned());
        // Lists of texts always print.
        let list = |l: &[String]| serde_json::to_string(l).unwrap_or_default();
        if !follow.is_empty() {
            attrs.insert("local.followpaths".to_owned(), list(follow));
        }
        if !exclude.is_empty() {
            attrs.insert("local.excludepatterns".to_owned(), list(exclude));
        }
        if let Some(session) = self.attrs.get(&format!("{name}session")) {
            attrs.insert("local.session".to_owned(), session.clone());
        }
        let source = pb::SourceOp { identifier: format!("local://{name}"), attrs };
        pb::Op { op: Some(pb::OpOp::Source(source)), ..pb::Op::default() }
    }

    fn key(&self, attr: &str, default: &'static str) -> String {
        let own = self.attr(attr);
        if own.is_empty() { default.to_owned() } else { own.to_owned() }
    }

    async fn read(&self, job: &Arc<Job>) -> Result<Read, BuildError> {
        let file_name = self.key("filename", "Dockerfile");
        let context_name = self.key("contextkey", "context");
        let file_context = self.key("dockerfilekey", "dockerfile");
        let remote = Some(self.attr("context")).filter(|c| !c.is_empty());
        let own_ignore = format!("{file_name}.dockerignore");
        let title = format!("[internal] load build definition from {file_name}");
        let follow = [file_name.clone(), own_ignore.clone(), file_name.to_ascii_lowercase()];
        let mut main_op = None;
        let files = match (self.input_value(job, &file_context).await, remote) {
            (Some(value), _) => value?,
            (None, Some(address)) => {
                let op = context_operation("context", address);
                main_op = Some(op.clone());
                let whole =
                    self.fetch(job, &op, &format!("[internal] load remote build context from {address}")).await?;
                match self.attrs.contains_key("dockerfilekey") {
                    true => self.fetch(job, &self.local_op(&file_context, &context_name, &follow, &[]), &title).await?,
                    false => whole,
                }
            }
            (None, None) => self.fetch(job, &self.local_op(&file_context, &context_name, &follow, &[]), &title).await?,
        };
        let tree = job.view(&files)?;
        let read = |name: &str| tree.read(Path::new(name), FILE_LIMIT);
        let text = match read(&file_name) {
            Ok(text) => text,
            // A name in lower case is taken when nothing else was asked for.
            Err(_) if file_name == "Dockerfile" && read("dockerfile").is_ok() => read("dockerfile").unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(BuildError::new(
                    Kind::NotFound,
                    format!("failed to read dockerfile: open {file_name}: no such file or directory"),
                ));
            }
            Err(e) => return Err(BuildError::system("failed to read dockerfile", &e)),
        };
        let mut options = self.options(&file_name, &text)?;
        if let Some((command, image, range)) = self.foreign(&text) {
            let place = crate::lower::located(&options, range, String::new()).source_place;
            return Ok(Read::Foreign(command, image, place));
        }
        options.ignore = match read(&own_ignore) {
            Ok(text) => ignore::read(&String::from_utf8_lossy(&text)),
            Err(_) => self.ignore(job, &context_name, remote.is_some(), &tree).await?,
        };
        let file = Dockerfile::parse(&text).map_err(|e| crate::lower::located(&options, e.range(), e.to_string()))?;
        options.context = Some(match main_op {
            Some(op) => op,
            None => self.local_op(&context_name, &context_name, &[], &options.ignore),
        });
        Ok(Read::Own(Box::new(Input { file, options })))
    }

    async fn ignore(
        &self,
        job: &Arc<Job>,
        context: &str,
        remote: bool,
        files: &crate::tree::Tree,
    ) -> Result<Vec<String>, BuildError> {
        const NAME: &str = ".dockerignore";
        let text = if remote {
            files.read(Path::new(NAME), FILE_LIMIT).ok()
        } else {
            let hint = format!("{context}-{NAME}");
            let op = self.local_op(context, &hint, &[NAME.to_owned()], &[]);
            let value = self.fetch(job, &op, "[internal] load .dockerignore").await?;
            job.view(&value)?.read(Path::new(NAME), FILE_LIMIT).ok()
        };
        Ok(text.map(|t| ignore::read(&String::from_utf8_lossy(&t))).unwrap_or_default())
    }

    fn options(&self, file_name: &str, text: &[u8]) -> Result<Options, BuildError> {
        let number = |name: &str| self.attr(name).parse::<i64>().unwrap_or(0);
        let hosts = self.attr("add-hosts").split(',').filter_map(|h| h.split_once('='));
        let mut ulimits = Vec::new();
        for text in self.attr("ulimit").split(',').filter(|u| !u.is_empty()) {
            let wrong = || BuildError::invalid(format!("invalid ulimit argument: {text}"));
            let (name, range) = text.split_once('=').ok_or_else(wrong)?;
            let (soft, hard) = range.split_once(':').unwrap_or((range, range));
            let number = |t: &str| t.parse::<i64>().map_err(|_| wrong());
            ulimits.push(pb::Ulimit { name: name.to_owned(), soft: number(soft)?, hard: number(hard)? });
        }
        let no_cache = self
            .attrs
            .get("no-cache")
            .map(|list| list.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect());
        Ok(Options {
            args: self.with_prefix("build-arg:"),
            labels: self.with_prefix("label:"),
            target: self.attr("target").to_owned(),
            platform: wharf_image::this_platform(),
            build_platform: wharf_image::this_platform(),
            contexts: self.with_prefix("context:").into_iter().map(|(k, v)| (k, v.to_owned())).collect(),
            no_cache,
            network: self.attr("force-network-mode").to_owned(),
            hosts: hosts.map(|(n, a)| (n.to_owned(), a.to_owned())).collect(),
            ulimits,
            shm_size: number("shm-size"),
            cgroup_parent: self.attr("cgroup-parent").to_owned(),
            hostname: self.attr("hostname").to_owned(),
            pull: self.attr("image-resolve-mode") == "pull",
            file_name: file_name.to_owned(),
            file_text: text.to_vec(),
            ..Options::default()
        })
    }

    /// Lowers; looks base images up as they turn out to be needed.
    async fn lower(&self, job: &Arc<Job>, file: &Dockerfile, options: &Options) -> Result<Lowered, BuildError> {
        let mut bases: HashMap<usize, BaseConfig> = HashMap::new();
        let mut options = options.clone();
        let mut narrowed = false;
        loop {
            let needed = match narrowed {
                false => Lower::new(file, &options, &bases)?.wanted_paths().map(Err),
                true => Lower::new(file, &options, &bases)?.finish().map(Ok),
            };
            match needed {
                Ok(Ok(lowered)) => return Ok(lowered),
                Ok(Err(paths)) => {
                    narrowed = true;
                    self.narrow(&mut options, paths.into_iter().collect());
                }
                Err(Stop::Error(e)) => return Err(e),
                Err(Stop::Needs(list)) => {
                    for (index, name) in list {
                        let platform = Lower::new(file, &options, &bases)?.platform_of(index);
                        let base = self.resolve(job, &options, &name, &platform).await;
                        let range = Some(file.stages[index].from.range);
                        let place = |e: BuildError| {
                            let known = crate::lower::located(&options, range, String::new());
                            BuildError { source_place: known.source_place, ..e }
                        };
                        bases.insert(index, base.map_err(place)?);
                    }
                }
            }
        }
    }

    /// Asks the client only for what is wanted of the context.
    fn narrow(&self, options: &mut Options, paths: Vec<String>) {
        let whole = paths.iter().any(|p| p == "/" || p.is_empty());
        let is_local = options
            .context
            .as_ref()
            .is_some_and(|op| matches!(&op.op, Some(pb::OpOp::Source(s)) if s.identifier.starts_with("local://")));
        if whole || !is_local || paths.is_empty() {
            return;
        }
        let name = self.key("contextkey", "context");
        let paths: Vec<String> = paths.iter().map(|p| p.trim_start_matches('/').to_owned()).collect();
        options.context = Some(self.local_op(&name, &name, &paths, &options.ignore));
    }

    /// Looks a base image up.
    async fn resolve(
        &self,
        job: &Arc<Job>,
        options: &Options,
        name: &str,
        platform: &oci::Platform,
    ) -> Result<BaseConfig, BuildError> {
        let contexts = &options.contexts;
        let named = contexts.get(name).or_else(|| contexts.get(&full_name(name)));
        let image = match named {
            None => name.to_owned(),
            Some(text) => match text.strip_prefix("docker-image://") {
                Some(image) => image.to_owned(),
                // A folder as a base: it has no configuration of its own.
                None => {
                    if let Some(input) = text.strip_prefix("input:") {
                        return self.input_config(input);
                    }
                    let config = oci::Image { platform: platform.clone(), ..oci::Image::default() };
                    return Ok(BaseConfig { config, digest: String::new() });
                }
            },
        };
        if wharf_types::Reference::parse(&image).is_err() {
            return Err(BuildError::invalid(format!("failed to parse stage name {image:?}: invalid reference format")));
        }
        let full = full_name(&image);
        let title = format!("[internal] load metadata for {full}");
        let step = Step::start(&job.progress, &digest_of(title.as_bytes()), &title, Vec::new(), None);
        let mut attrs = BTreeMap::new();
        if options.pull {
            attrs.insert("image.resolvemode".to_owned(), "pull".to_owned());
        }
        let wanted = crate::lower::to_platform(platform);
        let found = source::image(job, &full, Some(&wanted), &attrs).await;
        step.done(false, &found.as_ref().err().map(ToString::to_string).unwrap_or_default());
        let base = found.map_err(|e| BuildError {
            text: Arc::from(format!("{image}: failed to resolve source metadata for {full}: {e}")),
            ..e
        })?;
        let image = &base.hold.image;
        Ok(BaseConfig { config: image.config.clone(), digest: image.id.as_str().to_owned() })
    }

    /// The configuration that goes with a definition that stands for a base.
    pub(crate) fn input_config(&self, name: &str) -> Result<BaseConfig, BuildError> {
        let text = self.attr(&format!("input-metadata:{name}"));
        if text.is_empty() {
            return Ok(BaseConfig {
                config: oci::Image { platform: wharf_image::this_platform(), ..oci::Image::default() },
                digest: String::new(),
            });
        }
        let wrong = |e: serde_json::Error| BuildError::invalid(format!("invalid metadata of {name}: {e}"));
        let metadata: BTreeMap<String, String> = serde_json::from_str(text).map_err(wrong)?;
        let config = metadata
            .get("containerimage.config")
            .map_or(Ok(oci::Image::default()), |c| serde_json::from_str(c).map_err(wrong))?;
        Ok(BaseConfig { config, digest: String::new() })
    }

    /// Tells what the checks found, and fails if that was asked for.
    fn tell(&self, job: &Arc<Job>, lowered: &Lowered, options: &Options) -> Result<(), BuildError> {
        let info = pb::SourceInfo {
            filename: options.file_name.clone(),
            data: options.file_text.clone(),
            language: "Dockerfile".to_owned(),
            ..pb::SourceInfo::default()
        };
        let title = format!("[internal] load build definition from {}", options.file_name);
        let vertex = digest_of(title.as_bytes());
        for warning in &lowered.checks.warnings {
            warn(&job.progress, &vertex, warning, &info);
        }
        if lowered.checks.error && !lowered.checks.warnings.is_empty() {
            let text = "lint violation found for rules: ".to_owned()
                + &lowered.checks.warnings.iter().map(|w| w.rule.name()).collect::<Vec<_>>().join(", ");
            return Err(BuildError::invalid(text));
        }
        Ok(())
    }

    /// Only the checks: `docker build --check`.
    async fn lint(&self, job: &Arc<Job>, input: &Input) -> Result<Outcome, BuildError> {
        let lowered = self.lower(job, &input.file, &input.options).await?;
        let mut text = String::new();
        let mut list = Vec::new();
        for w in &lowered.checks.warnings {
            text.push_str(&format!("\nWARNING: {} - {}\n{}\n", w.rule.name(), w.rule.url(), w.message));
            text.push_str(&wharf_dockerfile::excerpt(
                &input.options.file_name,
                &input.options.file_text,
                w.range.first,
                w.range.last,
            ));
            list.push(serde_json::json!({
                "ruleName": w.rule.name(),
                "description": w.rule.description(),
                "url": w.rule.url(),
                "detail": w.message,
                "location": {"ranges": [{"start": {"line": w.range.first}, "end": {"line": w.range.last}}]},
            }));
        }
        let sources = serde_json::json!([{"filename": input.options.file_name, "language": "Dockerfile", "data": base64_text(&input.options.file_text)}]);
        let json = serde_json::json!({"warnings": list, "sources": sources});
        let status = if list.is_empty() { "0" } else { "1" };
        let metadata = [
            ("result.json".to_owned(), json.to_string().into_bytes()),
            ("result.txt".to_owned(), text.into_bytes()),
            ("result.statuscode".to_owned(), status.as_bytes().to_vec()),
            ("version".to_owned(), b"1.0.0".to_vec()),
        ];
        Ok(Outcome { images: Vec::new(), metadata: metadata.into() })
    }
}

/// Whether an image is Docker's own front end, whose language is built in.
pub(crate) fn is_own(image: &str) -> bool {
    wharf_types::Reference::parse(image)
        .is_ok_and(|name| ["docker/dockerfile", "docker/dockerfile-upstream"].contains(&name.familiar_name()))
}

/// Standard base64.
pub fn base64_text(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn describe_requests() -> Outcome {
    let list = serde_json::json!([
        {"name": "frontend.subrequests.describe", "version": "1.0.0", "type": "rpc", "description": "List available subrequest types"},
        {"name": "frontend.lint", "version": "1.0.0", "type": "rpc", "description": "Lint a Dockerfile"},
        {"name": "frontend.targets", "version": "1.0.0", "type": "rpc", "description": "List all targets current build supports"},
    ]);
    let metadata = [("result.json".to_owned(), list.to_string().into_bytes())];
    Outcome { images: Vec::new(), metadata: metadata.into() }
}

fn list_targets(file: &Dockerfile) -> Outcome {
    let last = file.stages.len() - 1;
    let targets: Vec<_> = file
        .stages
        .iter()
        .enumerate()
        .map(|(i, stage)| {
            serde_json::json!({
                "name": stage.name,
                "default": i == last,
                "base": stage.base,
                "platform": stage.platform,
                "location": {"ranges": [{"start": {"line": stage.from.range.first}, "end": {"line": stage.from.range.last}}]},
            })
        })
        .collect();
    let text: Vec<String> = file
        .stages
        .iter()
        .enumerate()
        .map(|(i, s)| format!("{}{}", s.name.clone().unwrap_or_default(), if i == last { " (default)" } else { "" }))
        .collect();
    let json = serde_json::json!({"targets": targets});
    let metadata = [
        ("result.json".to_owned(), json.to_string().into_bytes()),
        ("result.txt".to_owned(), format!("TARGET\n{}\n", text.join("\n")).into_bytes()),
        ("version".to_owned(), b"1.0.0".to_vec()),
    ];
    Outcome { images: Vec::new(), metadata: metadata.into() }
}
