//! Execs.

use wharf_api_server::backend::{ExecBackend, ExecStarted, Reply, Stdio};
use wharf_api_types as api;
use wharf_engine::execs::Started;

use super::{Joined, later, ready};

impl ExecBackend for Joined {
    fn create<'a>(&'a self, container: &'a str, request: api::ExecCreateRequest) -> Reply<'a, String> {
        ready(self.0.execs.create(container, request).map(|id| id.to_string()))
    }

    fn start<'a>(&'a self, id: &'a str, request: api::ExecStartRequest) -> Reply<'a, ExecStarted> {
        let execs = self.0.execs.clone();
        if request.detach {
            return later(async move { execs.start(id, request).await.map(|_| ExecStarted::Detached) });
        }
        // What Docker refuses before it answers is refused here; a failed start comes down the stream.
        later(async move {
            let shape = execs.check_start(id).await?;
            let id = id.to_owned();
            let detach_keys = execs.detach_keys(&id);
            let (ending, leaving) = ((execs.clone(), id.clone()), (execs.clone(), id.clone()));
            let stream = async move {
                match execs.start(&id, request).await? {
                    Started::Attached(attached) => Ok(attached.stream),
                    Started::Detached => Err(wharf_engine::EngineError::NoExec(id)),
                }
            };
            Ok::<_, wharf_engine::EngineError>(ExecStarted::Attached(Stdio {
                tty: shape.tty,
                stdin: shape.stdin,
                stream: later(stream),
                detach_keys,
                ended: Box::pin(async move { ending.0.ended(&ending.1).await }),
                on_detach: Box::new(move || leaving.0.detached(&leaving.1)),
            }))
        })
    }

    fn inspect<'a>(&'a self, id: &'a str) -> Reply<'a, api::ExecInspect> {
        ready(self.0.execs.inspect(id))
    }

    fn resize<'a>(&'a self, id: &'a str, height: u32, width: u32) -> Reply<'a, ()> {
        later(self.0.execs.resize(id, height, width))
    }
}
