//! A front end for `# syntax=`: what an image of it says is read from a recipe, in a language of its own, and made by
//! BuildKit's gateway protocol over standard input and output.
//!
//! ```text
//! base IMAGE        run COMMAND        copy SOURCE TARGET     label NAME VALUE    ($NAME: a build argument)
//! holds PATH TEXT   lists FOLDER NAME  dockerfile LINE;LINE   fail WORDS          die CODE
//! ```

use std::collections::BTreeMap;

use prost::Message;
use wharf_grpc::{Channel, Code, Status};
use wharf_proto_buildkit::gateway::{
    PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, Ref, RefMap,
    ResolveImageConfigRequest, ResolveImageConfigResponse, Result as Returned, ResultResult, ReturnRequest,
    ReturnResponse, SolveRequest, SolveResponse, StatFileRequest, StatFileResponse,
};
use wharf_proto_buildkit::pb;
use wharf_solver::{Maker, Output, describe};

/// Asks the builder.
struct Builder {
    channel: Channel,
    options: BTreeMap<String, String>,
}

/// What a recipe has made so far.
#[derive(Default)]
struct State {
    maker: Maker,
    top: Option<Output>,
    image: serde_json::Value,
    labels: serde_json::Map<String, serde_json::Value>,
    /// What another front end made.
    made: Option<Returned>,
}

type Done<T> = Result<T, Status>;

fn wrong(text: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, text)
}

impl Builder {
    async fn ask<A: Message + Default>(&self, method: &str, question: &impl Message) -> Done<A> {
        self.channel.unary(&format!("/moby.buildkit.v1.frontend.LLBBridge/{method}"), question).await
    }

    async fn solve(&self, definition: pb::Definition) -> Done<String> {
        let request = SolveRequest {
            definition: Some(definition),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..SolveRequest::default()
        };
        let answer: SolveResponse = self.ask("Solve", &request).await?;
        match answer.result.and_then(|r| r.result) {
            Some(ResultResult::Ref(reference)) => Ok(reference.id),
            other => Err(wrong(format!("a solve gave {other:?}"))),
        }
    }

    async fn read(&self, reference: &str, path: &str) -> Done<String> {
        let request =
            ReadFileRequest { r#ref: reference.to_owned(), file_path: path.to_owned(), ..ReadFileRequest::default() };
        let answer: ReadFileResponse = self.ask("ReadFile", &request).await?;
        Ok(String::from_utf8_lossy(&answer.data).into_owned())
    }

    fn local(&self, name: &str, only: &str) -> pb::Op {
        let mut attrs = BTreeMap::from([("local.sharedkeyhint".to_owned(), name.to_owned())]);
        if !only.is_empty() {
            attrs.insert("local.followpaths".to_owned(), serde_json::json!([only]).to_string());
        }
        attrs.insert("local.session".to_owned(), std::env::var("BUILDKIT_SESSION_ID").unwrap_or_default());
        source(&format!("local://{name}"), attrs)
    }

    /// The recipe as the client has it.
    async fn recipe(&self) -> Done<String> {
        let name = self.options.get("filename").map_or("Dockerfile", String::as_str);
        let mut maker = Maker::default();
        let digest = maker.add(&self.local("dockerfile", name), describe("[internal] load recipe"), None);
        let reference = self.solve(maker.finish(&Output { digest, index: 0 }, "", b"")).await?;
        self.read(&reference, name).await
    }

    /// Carries a recipe out for one platform.
    async fn make(&self, recipe: &str, platform: &str) -> Done<State> {
        let mut state = State::default();
        for line in recipe.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut line = line.replace("$PLATFORM", platform);
            for (name, value) in self.options.iter().filter_map(|(k, v)| Some((k.strip_prefix("build-arg:")?, v))) {
                line = line.replace(&format!("${name}"), value);
            }
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
            self.step(&mut state, word, rest, (first, second)).await?;
        }
        Ok(state)
    }

    async fn step(&self, state: &mut State, word: &str, rest: &str, (first, second): (&str, &str)) -> Done<()> {
        match word {
            "base" => self.base(state, rest).await?,
            "run" => {
                let meta = pb::Meta {
                    args: ["/bin/sh", "-c", rest].map(str::to_owned).into(),
                    env: vec!["PATH=/bin".to_owned()],
                    cwd: "/".to_owned(),
                    ..pb::Meta::default()
                };
                let root = pb::Mount { dest: "/".to_owned(), ..pb::Mount::default() };
                let exec = pb::ExecOp { meta: Some(meta), mounts: vec![root], ..pb::ExecOp::default() };
                state.upon(pb::OpOp::Exec(exec), rest, None)?;
            }
            "copy" => {
                let context = state.maker.add(&self.local("context", ""), describe("[internal] load context"), None);
                let copy = pb::FileActionCopy {
                    src: format!("/{first}"),
                    dest: second.to_owned(),
                    mode: -1,
                    timestamp: -1,
                    ..pb::FileActionCopy::default()
                };
                let action = pb::FileAction {
                    input: 0,
                    secondary_input: 1,
                    output: 0,
                    action: Some(pb::FileActionAction::Copy(copy)),
                };
                state.upon(pb::OpOp::File(pb::FileOp { actions: vec![action] }), rest, Some(context))?;
            }
            "label" => drop(state.labels.insert(first.to_owned(), second.into())),
            "holds" => {
                let reference = self.solve(state.definition()?).await?;
                let text = self.read(&reference, first).await?;
                let request = StatFileRequest { r#ref: reference, path: first.to_owned(), ..Default::default() };
                let stat: StatFileResponse = self.ask("StatFile", &request).await?;
                if text.trim() != second || stat.stat.is_none_or(|s| s.size != text.len() as i64) {
                    return Err(wrong(format!("{first} holds {text:?}, not {second:?}")));
                }
            }
            "lists" => {
                let reference = self.solve(state.definition()?).await?;
                let request = ReadDirRequest { r#ref: reference, dir_path: first.to_owned(), ..Default::default() };
                let found: ReadDirResponse = self.ask("ReadDir", &request).await?;
                if !found.entries.iter().any(|e| e.path == second.as_bytes()) {
                    return Err(wrong(format!("{second} is not in {first}")));
                }
            }
            "dockerfile" => state.made = Some(self.dockerfile(&rest.replace(';', "\n")).await?),
            "fail" => return Err(wrong(rest)),
            "die" => {
                eprintln!("told to die");
                std::process::exit(rest.parse().unwrap_or(1));
            }
            other => return Err(wrong(format!("unknown word {other}"))),
        }
        Ok(())
    }

    async fn base(&self, state: &mut State, name: &str) -> Done<()> {
        // As BuildKit wants names: whole.
        let name = if name.contains('/') { name.to_owned() } else { format!("docker.io/library/{name}") };
        let image = &if name.contains(':') { name } else { format!("{name}:latest") };
        let request = ResolveImageConfigRequest { r#ref: image.to_owned(), ..Default::default() };
        let found: ResolveImageConfigResponse = self.ask("ResolveImageConfig", &request).await?;
        state.image = serde_json::from_slice(&found.config).map_err(|e| wrong(e.to_string()))?;
        let op = source(&format!("docker-image://{image}"), BTreeMap::new());
        let digest = state.maker.add(&op, describe(format!("base {image}")), None);
        state.top = Some(Output { digest, index: 0 });
        Ok(())
    }

    /// Hands a text to the front end for Dockerfiles.
    async fn dockerfile(&self, text: &str) -> Done<Returned> {
        let file = pb::FileActionMkFile {
            path: "/Dockerfile".to_owned(),
            mode: 0o644,
            data: text.as_bytes().to_vec(),
            timestamp: -1,
            ..pb::FileActionMkFile::default()
        };
        let action = pb::FileAction {
            input: -1,
            secondary_input: -1,
            output: 0,
            action: Some(pb::FileActionAction::Mkfile(file)),
        };
        let op = pb::Op { op: Some(pb::OpOp::File(pb::FileOp { actions: vec![action] })), ..pb::Op::default() };
        let mut maker = Maker::default();
        let digest = maker.add(&op, describe("write a Dockerfile"), None);
        let definition = maker.finish(&Output { digest, index: 0 }, "", b"");
        let request = SolveRequest {
            frontend: "dockerfile.v0".to_owned(),
            frontend_opt: self.options.clone(),
            frontend_inputs: BTreeMap::from([("dockerfile".to_owned(), definition)]),
            allow_result_return: true,
            allow_result_array_ref: true,
            ..SolveRequest::default()
        };
        let answer: SolveResponse = self.ask("Solve", &request).await?;
        answer.result.ok_or_else(|| wrong("no result"))
    }

    async fn work(&self) -> Done<Returned> {
        let pong: PongResponse = self.ask("Ping", &PingRequest {}).await?;
        if pong.workers.is_empty() || pong.llb_caps.is_empty() || pong.frontend_api_caps.is_empty() {
            return Err(wrong("the builder says nothing of itself"));
        }
        if self.options.get("requestid").is_some_and(|id| !id.is_empty()) {
            let metadata = BTreeMap::from([
                ("result.json".to_owned(), br#"{"name":"asked-of-the-recipe"}"#.to_vec()),
                ("version".to_owned(), b"1.0.0".to_vec()),
            ]);
            return Ok(Returned { metadata, ..Returned::default() });
        }
        let recipe = self.recipe().await?;
        let platforms: Vec<&str> = self.options.get("platform").map(|p| p.split(',').collect()).unwrap_or_default();
        if platforms.len() < 2 {
            let state = self.make(&recipe, platforms.first().copied().unwrap_or("here")).await?;
            if let Some(made) = state.made {
                return Ok(made);
            }
            let metadata = BTreeMap::from([("containerimage.config".to_owned(), state.config())]);
            let reference = match state.top {
                Some(_) => Some(ResultResult::Ref(Ref { id: self.solve(state.definition()?).await?, def: None })),
                None => None,
            };
            return Ok(Returned { result: reference, metadata, ..Returned::default() });
        }
        let (mut refs, mut metadata, mut list) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for platform in platforms {
            let mut state = self.make(&recipe, platform).await?;
            let (os, architecture) = platform.split_once('/').ok_or_else(|| wrong("no platform"))?;
            (state.image["os"], state.image["architecture"]) = (os.into(), architecture.into());
            metadata.insert(format!("containerimage.config/{platform}"), state.config());
            refs.insert(platform.to_owned(), Ref { id: self.solve(state.definition()?).await?, def: None });
            list.push(serde_json::json!({"ID": platform, "Platform": {"architecture": architecture, "os": os}}));
        }
        let list = serde_json::json!({ "Platforms": list }).to_string();
        metadata.insert("refs.platforms".to_owned(), list.into_bytes());
        Ok(Returned { result: Some(ResultResult::Refs(RefMap { refs })), metadata, ..Returned::default() })
    }
}

fn source(identifier: &str, attrs: BTreeMap<String, String>) -> pb::Op {
    let source = pb::SourceOp { identifier: identifier.to_owned(), attrs };
    pb::Op { op: Some(pb::OpOp::Source(source)), ..pb::Op::default() }
}

impl State {
    /// Puts an operation upon what there is.
    fn upon(&mut self, op: pb::OpOp, name: &str, further: Option<String>) -> Done<()> {
        let top = self.top.as_ref().ok_or_else(|| wrong("there is no base"))?;
        let mut inputs = vec![pb::Input { digest: top.digest.clone(), index: top.index as i64 }];
        inputs.extend(further.map(|digest| pb::Input { digest, index: 0 }));
        let op = pb::Op { inputs, op: Some(op), ..pb::Op::default() };
        let digest = self.maker.add(&op, describe(name), None);
        self.top = Some(Output { digest, index: 0 });
        Ok(())
    }

    fn definition(&self) -> Done<pb::Definition> {
        let top = self.top.as_ref().ok_or_else(|| wrong("there is no base"))?;
        Ok(self.maker.finish(top, "", b""))
    }

    fn config(&self) -> Vec<u8> {
        let mut image = self.image.clone();
        if image.is_null() {
            image = serde_json::json!({"os": "linux", "architecture": "amd64"});
        }
        image["config"]["Labels"] = serde_json::Value::Object(self.labels.clone());
        image.to_string().into_bytes()
    }
}

/// What the builder says in the environment, as BuildKit's own front ends read it.
fn options() -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    for number in 0.. {
        let Ok(value) = std::env::var(format!("BUILDKIT_FRONTEND_OPT_{number}")) else { break };
        if let Some((name, value)) = value.split_once('=') {
            options.insert(name.to_owned(), value.to_owned());
        }
    }
    options
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
    let channel = Channel::open(stream).await.expect("the builder speaks HTTP/2");
    let workers = std::env::var("BUILDKIT_WORKERS").expect("workers");
    let workers: serde_json::Value = serde_json::from_str(&workers).expect("JSON");
    assert!(workers[0]["platforms"][0]["architecture"].is_string(), "{workers}");
    assert_eq!(std::env::var("BUILDKIT_EXPORTEDPRODUCT").expect("product"), "docker");
    assert!(std::fs::metadata("/run/config/buildkit/metadata/frontend.bin").expect("my definition").len() > 0);
    let builder = Builder { channel, options: options() };
    let answer = match builder.work().await {
        Ok(result) => ReturnRequest { result: Some(result), error: None },
        Err(status) => {
            let code = status.code as i32;
            let error = wharf_proto_buildkit::Status { code, message: status.message, details: status.details };
            ReturnRequest { result: None, error: Some(error) }
        }
    };
    let _: ReturnResponse = builder.ask("Return", &answer).await.expect("returned");
    // The runtime would wait for a read of standard input that nothing ends.
    std::process::exit(0);
}
