# Docker's dockerd with our runtime under a name, and as its default.
export DOCKER_HOST=unix://$W/d.sock DOCKER_CONFIG=$W/d.config
launch() {
	dockerd --data-root "$W/d" --exec-root "$W/d.run" -H "$DOCKER_HOST" --pidfile "$W/d.pid" --add-runtime "wharf=$RUNTIME" "$@" >>"$W/d.log" 2>&1 &
	daemon=$!
	holds 'dockerd is up' docker version
	docker load -qi "$W/bin/image.tar" >/dev/null || { tail -n 30 "$W/d.log"; exit 1; }
}
halt() {
	end $daemon
	rm -f "$W/d.pid"
}
launch
R='docker run --runtime wharf'
check 'output' out "$($R --rm busybox echo out)"
$R --rm busybox sh -c 'exit 7'; check 'exit code' 7 $?
$R --rm busybox nosuchcommand 2>"$W/err"; check 'a command that is missing' 127 $?
grep -q 'executable file not found in \$PATH' "$W/err"; check "and its words, $(tail -c 200 "$W/err")" 0 $?
$R --rm busybox /etc 2>"$W/err"; check 'a command that is a folder' 126 $?
check 'input' through "$(echo through | $R --rm -i busybox cat)"
check 'a terminal' /dev/pts/0 "$(on_terminal "$R --rm -it busybox tty")"
$R -d --name one --memory 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'trap "exit 3" TERM; echo begun; while :; do sleep 0.05; done' >/dev/null
check 'started' 0 $?
pid=$(docker inspect -f '{{.State.Pid}}' one)
check 'memory limit' 67108864 "$(memory_of "$pid")"
check 'process limit' 50 "$(pids_of "$pid")"
check 'exec' 'b /etc' "$(docker exec -e A=b -w /etc one sh -c 'echo $A $PWD')"
docker exec one sh -c 'exit 5'; check 'exit code of an exec' 5 $?
docker exec one nosuchcommand >"$W/err" 2>&1; check 'an exec that is missing' 127 $?
check 'exec -it' '/dev/pts/0 tty' "$(on_terminal "docker exec -it one sh -c 'echo \$(tty) tty'")"
docker exec -d one touch /made
holds 'exec -d' docker exec one test -e /made
docker pause one >/dev/null
check 'paused' paused "$(docker inspect -f '{{.State.Status}}' one)"
docker unpause one >/dev/null
check 'running again' running "$(docker inspect -f '{{.State.Status}}' one)"
case $(docker stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one) in *64MiB\ [1-9]*) stats=yes ;; *) stats=no ;; esac
check 'stats' yes $stats
docker top one | grep -q 'while'; check 'top' 0 $?
docker update --memory 48m --memory-swap 96m one >/dev/null; check 'update' 0 $?
check 'updated limit' 50331648 "$(memory_of "$pid")"
check 'logs' begun "$(docker logs one)"
docker stop -t 10 one >/dev/null
check 'stopped by its own handler' 3 "$(docker inspect -f '{{.State.ExitCode}}' one)"
docker start one >/dev/null; check 'started again' 0 $?
docker kill one >/dev/null
check 'killed' 137 "$(docker wait one)"
docker rm one >/dev/null; check 'removed' 0 $?
check 'out of memory' 137 "$($R --name big -m 16m --memory-swap 16m busybox tail /dev/zero; echo $?)"
check 'told as such' true "$(docker inspect -f '{{.State.OOMKilled}}' big)"
docker rm big >/dev/null
check 'network' 1 "$($R --rm busybox sh -c 'ip -o addr show eth0 | grep -c "inet "')"
check 'init' docker-init "$($R --rm --init busybox cat /proc/1/comm)"
check 'privileged' 0 "$($R --rm --privileged busybox sh -c 'mount -t tmpfs x /tmp; echo $?')"
check 'a mount is refused otherwise' 1 "$($R --rm busybox sh -c 'mount -t tmpfs x /tmp 2>/dev/null && echo 0 || echo 1')"
check 'read-only' 1 "$($R --rm --read-only busybox touch /x 2>/dev/null; echo $?)"
docker volume create vol >/dev/null
$R --rm -v vol:/data --tmpfs /scratch busybox sh -c 'echo kept >/data/f; touch /scratch/f'
check 'volume' kept "$($R --rm -v vol:/data busybox cat /data/f)"
$R -d --name first busybox sleep 1000 >/dev/null
check 'shared namespaces' yes "$($R --rm --network container:first --pid container:first busybox sh -c 'ps | grep -q "sleep 1000" && echo yes')"
docker rm -f first >/dev/null
check 'nothing is left' 0 "$(docker ps -aq | wc -l)"
halt
# Ids of users remapped, our runtime the default one.
mount --bind "$W/subid" /etc/subuid && mount --bind "$W/subid" /etc/subgid
launch --default-runtime wharf --userns-remap nobody:nogroup
check 'the default' wharf "$(docker info -f '{{.DefaultRuntime}}')"
check 'user namespace' "$MAPPED" "$(docker run --rm busybox cat /proc/self/uid_map | squeeze)"
docker run -d --name remapped busybox sleep 1000 >/dev/null
check 'its owner on the host' 100000 "$(stat -c %u "/proc/$(docker inspect -f '{{.State.Pid}}' remapped)")"
check 'exec in it' 0 "$(docker exec remapped id -u)"
docker rm -f remapped >/dev/null
check 'the host is its own again if asked' '0 0 4294967295' "$(docker run --rm --userns host busybox cat /proc/self/uid_map | squeeze)"
halt
[ $failed = 0 ] || tail -n 30 "$W/d.log"
