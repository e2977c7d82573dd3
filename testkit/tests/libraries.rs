//! Public client libraries: docker-py and bollard do create, start, attach, exec, logs and wait.

use std::process::Command;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptions,
    StartContainerOptions, WaitContainerOptions,
};
use futures_util::{StreamExt, TryStreamExt};
use testkit::Daemon;
use tokio::io::AsyncWriteExt;

fn text(outputs: &[LogOutput]) -> String {
    outputs.iter().map(|o| String::from_utf8_lossy(o.as_ref()).into_owned()).collect()
}

fn strings(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|w| (*w).to_owned()).collect())
}

#[tokio::test]
async fn bollard_creates_attaches_starts_execs_reads_logs_and_waits() -> Result<(), bollard::errors::Error> {
    let daemon = Daemon::with_image();
    let socket = daemon.socket();
    let docker = Docker::connect_with_unix(socket.to_str().expect("plain"), 60, bollard::API_DEFAULT_VERSION)?
        .negotiate_version()
        .await?;
    let options = CreateContainerOptionsBuilder::new().name("bollard").build();
    let body = ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: strings(&["sh", "-c", "read line; echo got $line; read line; exit 4"]),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        ..Default::default()
    };
    docker.create_container(Some(options), body).await?;
    let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
    let mut attached = docker.attach_container("bollard", Some(options)).await?;
    docker.start_container("bollard", None::<StartContainerOptions>).await?;
    attached.input.write_all(b"word\n").await.expect("written");
    let first = attached.output.next().await.expect("output")?;
    assert_eq!(text(&[first]), "got word\n");
    let exec = ExecConfig {
        cmd: strings(&["sh", "-c", "echo in exec; exit 6"]),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let exec = docker.create_exec("bollard", exec).await?;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&exec.id, None::<StartExecOptions>).await? else {
        panic!("not attached");
    };
    assert_eq!(text(&output.try_collect::<Vec<_>>().await?), "in exec\n");
    assert_eq!(docker.inspect_exec(&exec.id).await?.exit_code, Some(6));
    attached.input.write_all(b"end\n").await.expect("written");
    let waited = docker.wait_container("bollard", None::<WaitContainerOptions>).next().await.expect("an answer");
    let error = waited.expect_err("bollard reports an exit code other than 0 as an error");
    assert!(matches!(error, bollard::errors::Error::DockerContainerWaitError { code: 4, .. }), "{error}");
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let logs = docker.logs("bollard", Some(options)).try_collect::<Vec<_>>().await?;
    assert_eq!(text(&logs), "got word\n");
    docker.remove_container("bollard", None::<RemoveContainerOptions>).await?;
    Ok(())
}

const PYTHON: &str = r#"
import docker, sys
client = docker.DockerClient(base_url=sys.argv[1])
assert client.ping()
assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
try:
    client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], remove=True)
    raise SystemExit("an exit code was lost")
except docker.errors.ContainerError as e:
    assert e.exit_status == 3, e
c = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2; sleep 1000"], name="py")
stream = c.attach(stream=True, logs=False, demux=True)
c.start()
out = err = b""
for o, e in stream:
    out += o or b""; err += e or b""
    if out and err: break
assert (out, err) == (b"out\n", b"err\n"), (out, err)
code, output = c.exec_run(["sh", "-c", "echo $X; exit 7"], environment={"X": "42"})
assert (code, output) == (7, b"42\n"), (code, output)
code, output = c.exec_run("tty", tty=True)
assert code == 0 and output.startswith(b"/dev/pts/"), output
assert c.logs(stdout=True, stderr=False) == b"out\n"
c.reload()
assert c.status == "running"
c.stop(timeout=0)
assert c.wait()["StatusCode"] == 137
events = client.events(since=0, until=int(__import__("time").time()) + 1, decode=True, filters={"container": "py"})
assert [e["Action"] for e in events if e["Action"] in ("start", "die")] == ["start", "die"]
c.remove()
assert client.containers.list(all=True) == []
assert client.images.get("busybox").tags == ["busybox:latest"]
assert client.info()["ServerVersion"] and client.version()["ApiVersion"]
print("done")
"#;

#[test]
fn docker_py_runs_attaches_execs_reads_logs_and_waits() {
    let daemon = Daemon::with_image();
    if !Command::new("/usr/bin/python3").args(["-c", "import docker"]).output().is_ok_and(|o| o.status.success()) {
        println!("SKIP docker-py: python3-docker is not installed");
        return;
    }
    let done = Command::new("/usr/bin/python3").args(["-c", PYTHON, &daemon.host()]).output().expect("python3");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
