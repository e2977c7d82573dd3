# podman with our runtime in place of its own.
export PODMAN_IGNORE_CGROUPSV1_WARNING=1
P="podman --root $W/podman --runroot $W/podman-run --tmpdir $W/podman-tmp --cgroup-manager cgroupfs --events-backend file --runtime $RUNTIME"
$P load -q -i "$W/bin/image.tar" >/dev/null || exit 1
R="$P run --network none"
check 'the runtime is ours' "$RUNTIME" "$($P info -f '{{.Host.OCIRuntime.Path}}')"
check 'output' out "$($R --rm busybox echo out)"
$R --rm busybox sh -c 'exit 7'; check 'exit code' 7 $?
$R --rm busybox nosuchcommand 2>"$W/err"; check 'a command that is missing' 127 $?
$R --rm busybox /etc 2>"$W/err"; check 'a command that is a folder' 126 $?
check 'input' through "$(echo through | $R --rm -i busybox cat)"
check 'a terminal' /dev/pts/0 "$(on_terminal "$R --rm -it busybox tty")"
$R -d --name one --memory 64m --pids-limit 50 --cpus 0.5 busybox sh -c 'trap "exit 3" TERM; echo begun; while :; do sleep 0.05; done' >/dev/null
check 'started' 0 $?
pid=$($P inspect -f '{{.State.Pid}}' one)
check 'memory limit' 67108864 "$(memory_of "$pid")"
check 'process limit' 50 "$(pids_of "$pid")"
check 'exec' 'b /etc' "$($P exec -e A=b -w /etc one sh -c 'echo $A $PWD')"
$P exec one sh -c 'exit 5'; check 'exit code of an exec' 5 $?
$P exec one nosuchcommand 2>"$W/err"; check 'an exec that is missing' 127 $?
check 'exec -it' '/dev/pts/0 tty' "$(on_terminal "$P exec -it one sh -c 'echo \$(tty) tty'")"
$P exec -d one touch /made
holds 'exec -d' $P exec one test -e /made
$P pause one >/dev/null
check 'paused' paused "$($P inspect -f '{{.State.Status}}' one)"
$P unpause one >/dev/null
check 'running again' running "$($P inspect -f '{{.State.Status}}' one)"
case $($P stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one) in *67.11MB*[1-9]*) stats=yes ;; *) stats=no ;; esac
check 'stats' yes $stats
$P top one | grep -q 'while'; check 'top' 0 $?
$P update --memory 48m --memory-swap 96m one >/dev/null; check 'update' 0 $?
check 'updated limit' 50331648 "$(memory_of "$pid")"
check 'logs' begun "$($P logs one)"
$P stop -t 10 one >/dev/null
check 'stopped by its own handler' 3 "$($P inspect -f '{{.State.ExitCode}}' one)"
$P start one >/dev/null; check 'started again' 0 $?
$P kill one >/dev/null
check 'killed' 137 "$($P wait one)"
$P rm one >/dev/null; check 'removed' 0 $?
check 'user namespace' "$MAPPED" "$($R --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 busybox cat /proc/self/uid_map | squeeze)"
check 'a user of the image' 65534 "$($R --rm -u nobody busybox id -u)"
check 'read-only' 1 "$($R --rm --read-only busybox touch /x 2>/dev/null; echo $?)"
mkdir -p "$W/volume"
$R --rm -v "$W/volume:/data" --tmpfs /scratch busybox sh -c 'echo kept >/data/f; touch /scratch/f'
check 'volume' kept "$(cat "$W/volume/f")"
# A pod: namespaces of another container by their paths.
$R -d --name first busybox sh -c 'hostname first; sleep 1000' >/dev/null
check 'shared namespaces' yes "$($R --rm --pid container:first --ipc container:first busybox sh -c 'ps | grep -q "sleep 1000" && echo yes')"
$P rm -f -t 0 first >/dev/null
check 'seccomp and capabilities of the defaults' '2 0' "$($R --rm busybox sh -c 'grep ^Seccomp: /proc/self/status | cut -f2; grep ^NoNewPrivs: /proc/self/status | cut -f2' | tr '\n' ' ' | squeeze)"
check 'nothing is left' 0 "$($P ps -aq | wc -l)"
$P system reset -f >/dev/null 2>&1
