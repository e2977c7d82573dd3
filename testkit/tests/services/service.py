import io, tarfile, time
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

with Network() as network:
    service = DockerContainer("service").with_exposed_ports(5432).with_network(network).with_network_aliases("db")
    with service as pg:
        wait_for_logs(pg, "ready to accept connections", timeout=60)
        assert int(pg.get_exposed_port(5432)) > 0
        query = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc"]
        done = pg.exec(query + ["create table t(n int); insert into t select generate_series(1, 1000); select sum(n) from t"])
        assert done.exit_code == 0 and done.output.split()[-1] == b"500500", done
        # Another container finds it by its name.
        client = DockerContainer("service").with_network(network).with_command(
            ["psql", "-h", "db", "-U", "postgres", "-Atc", "select count(*) from t"])
        with client as other:
            assert other.get_wrapped_container().wait()["StatusCode"] == 0, other.get_logs()
            assert other.get_logs()[0] == b"1000\n", other.get_logs()
        wrapped = pg.get_wrapped_container()
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            info = tarfile.TarInfo("f"); info.size = 5
            tar.addfile(info, io.BytesIO(b"hello"))
        assert wrapped.put_archive("/tmp", data.getvalue())
        assert pg.exec("cat /tmp/f").output == b"hello"
        bits, stat = wrapped.get_archive("/tmp/f")
        assert stat["size"] == 5 and b"hello" in b"".join(bits)
        assert wrapped.stats(stream=False)["memory_stats"]["usage"] > 1_000_000
import docker
assert docker.from_env().containers.list(all=True) == []
print("done")
