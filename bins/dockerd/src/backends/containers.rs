//! Containers.

use bytes::Bytes;
use wharf_api_server::ApiError;
use wharf_api_server::backend::{
    ArchivePut, ArchiveStream, ContainerBackend, Incoming, LogStream, Outgoing, Reply, Stdio,
};
use wharf_api_types as api;
use wharf_api_types::query;
use wharf_engine::EngineError;
use wharf_engine::files::CopyOptions;
use wharf_engine::lifecycle::RemoveOptions;
use wharf_engine::metrics::Action;
use wharf_engine::streams::Wanted;

use super::bodies::{BodyReader, BodyWriter, send};
use super::{Joined, blocking, forward, later, later_feature, ready};

impl ContainerBackend for Joined {
    fn create<'a>(
        &'a self,
        name: &'a str,
        platform: &'a str,
        request: api::ContainerCreateRequest,
    ) -> Reply<'a, api::ContainerCreateResponse> {
        later(self.timed(Action::Create, self.0.creator.create(name, platform, request)))
    }

    fn start<'a>(&'a self, name: &'a str, checkpoint: &'a str, checkpoint_dir: &'a str) -> Reply<'a, ()> {
        later(self.timed(Action::Start, self.0.lifecycle.start_from(name, checkpoint, checkpoint_dir)))
    }

    fn checkpoint<'a>(&'a self, name: &'a str, request: api::CheckpointCreateRequest) -> Reply<'a, ()> {
        later(async move {
            let api::CheckpointCreateRequest { checkpoint_id, checkpoint_dir, exit } = request;
            self.0.lifecycle.checkpoint(name, &checkpoint_id, &checkpoint_dir, exit).await
        })
    }

    fn checkpoints<'a>(&'a self, name: &'a str, dir: &'a str) -> Reply<'a, Vec<api::CheckpointSummary>> {
        let names = self.0.lifecycle.list_checkpoints(name, dir);
        ready(names.map(|names| names.into_iter().map(|name| api::CheckpointSummary { name }).collect()))
    }

    fn remove_checkpoint<'a>(&'a self, name: &'a str, checkpoint: &'a str, dir: &'a str) -> Reply<'a, ()> {
        later(self.0.lifecycle.remove_checkpoint(name, checkpoint, dir))
    }

    fn stop<'a>(&'a self, name: &'a str, query: query::ContainerStop) -> Reply<'a, ()> {
        later(async move { self.0.lifecycle.stop(name, &query).await })
    }

    fn restart<'a>(&'a self, name: &'a str, query: query::ContainerStop) -> Reply<'a, ()> {
        later(async move { self.0.lifecycle.restart(name, &query).await })
    }

    fn kill<'a>(&'a self, name: &'a str, signal: &'a str) -> Reply<'a, ()> {
        later(self.0.lifecycle.kill(name, signal))
    }

    fn pause<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        later(self.0.lifecycle.pause(name))
    }

    fn unpause<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        later(self.0.lifecycle.unpause(name))
    }

    fn rename<'a>(&'a self, name: &'a str, new_name: &'a str) -> Reply<'a, ()> {
        later(self.0.changes.rename(name, new_name))
    }

    fn update<'a>(
        &'a self,
        name: &'a str,
        request: api::ContainerUpdateRequest,
    ) -> Reply<'a, api::ContainerUpdateResponse> {
        later(self.0.changes.update(name, request))
    }

    fn remove<'a>(&'a self, name: &'a str, query: query::ContainerRemove) -> Reply<'a, ()> {
        if query.link {
            return later_feature("removing a link");
        }
        let options = RemoveOptions { force: query.force, volumes: query.volumes };
        later(self.timed(Action::Delete, self.0.lifecycle.remove(name, options)))
    }

    fn prune(&self, filters: api::Filters) -> Reply<'_, api::ContainerPruneResponse> {
        later(async move { self.0.changes.prune(&filters).await })
    }

    fn list(&self, query: query::ContainerList) -> Reply<'_, Vec<api::ContainerSummary>> {
        if query.size {
            let lists = self.0.lists.clone();
            return blocking(move || lists.list(&query));
        }
        ready(self.0.lists.list(&query))
    }

    fn inspect<'a>(&'a self, name: &'a str, size: bool) -> Reply<'a, api::ContainerInspect> {
        if size {
            let (lists, name) = (self.0.lists.clone(), name.to_owned());
            return blocking(move || lists.inspect(&name, true));
        }
        ready(self.0.lists.inspect(name, false))
    }

    fn top<'a>(&'a self, name: &'a str, ps_args: &'a str) -> Reply<'a, api::ContainerTopResponse> {
        later(self.0.processes.top(name, ps_args))
    }

    fn changes<'a>(&'a self, name: &'a str) -> Reply<'a, Option<Vec<api::FilesystemChange>>> {
        later(async move { self.0.files.changes(name).await.map(|list| (!list.is_empty()).then_some(list)) })
    }

    fn wait<'a>(
        &'a self,
        name: &'a str,
        condition: query::WaitCondition,
    ) -> Reply<'a, Reply<'static, api::ContainerWaitResponse>> {
        ready(self.0.streams.wait(name, condition).map(|end| {
            let answer = async move {
                let end = end.await;
                let error = (!end.error.is_empty()).then_some(api::WaitError { message: end.error });
                Ok(api::ContainerWaitResponse { status_code: end.code, error })
            };
            Box::pin(answer) as Reply<'static, _>
        }))
    }

    fn attach<'a>(&'a self, name: &'a str, query: query::Attach) -> Reply<'a, Stdio> {
        let wanted = Wanted {
            stdin: query.stdin,
            stdout: query.stdout,
            stderr: query.stderr,
            logs: query.logs,
            stream: query.stream,
        };
        let stdin = query.stdin;
        let (streams, container) = (self.0.streams.clone(), name.to_owned());
        ready(self.0.streams.attach(name, wanted).map(|(tty, connecting)| Stdio {
            tty,
            stdin,
            stream: later(connecting),
            detach_keys: query.detach_keys,
            ended: Box::pin(std::future::ready(())),
            on_detach: Box::new(move || streams.detached(&container)),
        }))
    }

    fn resize<'a>(&'a self, name: &'a str, height: u32, width: u32) -> Reply<'a, ()> {
        later(self.0.streams.resize(name, height, width))
    }

    fn logs<'a>(&'a self, name: &'a str, query: query::Logs) -> Reply<'a, LogStream> {
        let reading = self.0.streams.logs(name, &query);
        ready(reading.map(|log| LogStream { tty: log.tty, body: forward(log.chunks, Bytes::from) }))
    }

    fn stats<'a>(&'a self, name: &'a str, query: query::Stats) -> Reply<'a, Outgoing<api::ContainerStats>> {
        let samples = self.0.processes.stats(name, query.stream, query.one_shot);
        ready(samples.map(|samples| forward(samples, |sample| sample)))
    }

    fn export<'a>(&'a self, name: &'a str) -> Reply<'a, Outgoing<Bytes>> {
        let (capture, name) = (self.0.capture.clone(), name.to_owned());
        Box::pin(async move {
            // An unknown name must become a status, so it is looked up before the body begins.
            capture.exportable(&name).map_err(|e| ApiError::of(&e))?;
            Ok(send(move |out| capture.export(&name, out)))
        })
    }

    fn archive_stat<'a>(&'a self, name: &'a str, path: &'a str) -> Reply<'a, api::PathStat> {
        later(self.0.files.stat(name, path))
    }

    fn archive_get<'a>(&'a self, name: &'a str, path: &'a str) -> Reply<'a, ArchiveStream> {
        let (sender, body) = tokio::sync::mpsc::channel(4);
        let failure = sender.clone();
        let failed = move |e: EngineError| drop(failure.blocking_send(Err(ApiError::of(&e))));
        let reading = self.0.files.read(name, path, BodyWriter::new(sender), failed);
        later(async move { Ok::<_, EngineError>(ArchiveStream { stat: reading.await?, body }) })
    }

    fn archive_put<'a>(&'a self, name: &'a str, path: &'a str, put: ArchivePut, body: Incoming) -> Reply<'a, ()> {
        let options = CopyOptions { keep_kinds: put.no_overwrite_dir_non_dir, own: put.copy_uid_gid };
        later(self.0.files.write(name, path, options, BodyReader::new(body)))
    }

    fn commit(&self, request: query::Commit) -> Reply<'_, String> {
        let name = super::images::reference(&request.repo, &request.tag);
        Box::pin(async move {
            let made = self.0.capture.commit(request, name?).await;
            made.map(|id| id.to_string()).map_err(|e| ApiError::of(&e))
        })
    }
}
