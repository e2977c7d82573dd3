# containerd with ctr: our runtime in runc's place under containerd's own shim, and our shim as a runtime of its own name.
mkdir -p "$W/cd"
cat >"$W/cd/config.toml" <<END
version = 3
root = '$W/cd/root'
state = '$W/cd/state'
disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime']
[grpc]
address = '$W/cd/s'
[ttrpc]
address = '$W/cd/s.ttrpc'
END
containerd --config "$W/cd/config.toml" >"$W/cd/log" 2>&1 &
daemon=$!
C="ctr -a $W/cd/s"
holds 'containerd is up' $C version
IMAGE=docker.io/library/busybox:latest
$C images import "$W/bin/image.tar" >/dev/null || exit 1
tasks() {
	name=$1
	shift
	check "$name: output" out "$($C run --rm "$@" $IMAGE c1 echo out)"
	$C run --rm "$@" $IMAGE c2 sh -c 'exit 7' 2>"$W/err"; check "$name: exit code" 7 $?
	$C run --rm "$@" $IMAGE c3 nosuchcommand 2>"$W/err"
	grep -q 'executable file not found' "$W/err"; check "$name: a command that is missing" 0 $?
	check "$name: a terminal" /dev/pts/0 "$(on_terminal "$C run --rm -t $* $IMAGE c4 tty")"
	$C run -d "$@" --memory-limit 67108864 --cpus 0.5 $IMAGE c5 sh -c 'trap "exit 3" TERM; while :; do sleep 0.05; done'
	check "$name: started" 0 $?
	pid=$($C tasks ls | sed -n 's/^c5 *\([0-9]*\).*/\1/p')
	check "$name: memory limit" 67108864 "$(memory_of "$pid")"
	check "$name: exec" in "$($C tasks exec --exec-id e1 c5 echo in)"
	$C tasks exec --exec-id e2 c5 sh -c 'exit 5' 2>"$W/err"; check "$name: exit code of an exec" 5 $?
	check "$name: exec -t" '/dev/pts/0 tty' "$(on_terminal "$C tasks exec -t --exec-id e3 c5 sh -c 'echo \$(tty) tty'" | grep -v 'resize pty')"
	$C tasks exec -d --exec-id e4 c5 touch /made; check "$name: exec -d" 0 $?
	holds "$name: what it made" test -e "/proc/$pid/root/made"
	$C tasks pause c5; check "$name: pause" PAUSED "$($C tasks ls | sed -n 's/^c5 .* //p')"
	$C tasks resume c5; check "$name: resume" RUNNING "$($C tasks ls | sed -n 's/^c5 .* //p')"
	$C tasks metrics c5 | grep -q -E 'memory.*usage'; check "$name: statistics" 0 $?
	$C tasks ps c5 | grep -q "^$pid"; check "$name: ps" 0 $?
	$C tasks kill -s TERM c5
	holds "$name: stopped" sh -c "$C tasks ls | grep -q '^c5 .*STOPPED'"
	$C tasks delete c5 2>"$W/err"
	grep -q 'non-zero exit code 3' "$W/err"; check "$name: stopped by its own handler" 0 $?
	$C tasks start -d c5; check "$name: started again" 0 $?
	$C tasks kill -s KILL c5
	holds "$name: killed" sh -c "$C tasks ls | grep -q '^c5 .*STOPPED'"
	$C tasks delete c5 2>"$W/err"
	grep -q 'non-zero exit code 137' "$W/err"; check "$name: killed" 0 $?
	$C containers rm c5; check "$name: removed" 0 $?
	check "$name: user namespace" "$MAPPED" "$($C run --rm "$@" --uidmap 0:100000:65536 --gidmap 0:100000:65536 --remap-labels $IMAGE c6 cat /proc/self/uid_map 2>&1 | squeeze)"
	check "$name: owners of layers are shifted" '0 nobody' "$($C run --rm "$@" --uidmap 0:100000:65536 --gidmap 0:100000:65536 --remap-labels $IMAGE c8 sh -c 'echo $(stat -c %u /bin) $(stat -c %U /proc/sys)' 2>&1)"
	# A daemon that dies finds its containers again.
	$C run -d "$@" $IMAGE c7 sleep 1000
	pid=$($C tasks ls | sed -n 's/^c7 *\([0-9]*\).*/\1/p')
	kill -9 $daemon
	wait $daemon 2>/dev/null
	containerd --config "$W/cd/config.toml" >>"$W/cd/log" 2>&1 &
	daemon=$!
	holds "$name: containerd is up again" $C version
	check "$name: adopted" "$pid RUNNING" "$($C tasks ls | sed -n 's/^c7 *//p' | squeeze)"
	check "$name: exec after adoption" there "$($C tasks exec --exec-id e5 c7 echo there)"
	$C tasks rm -f c7 2>"$W/err"
	$C containers rm c7; check "$name: removed after adoption" 0 $?
	check "$name: nothing is left" '0 0' "$($C containers ls -q | wc -l) $($C tasks ls -q | wc -l)"
}
tasks "runc's shim" --runtime io.containerd.runc.v2 --runc-binary "$RUNTIME"
tasks 'our shim' --runtime io.containerd.wharf.v2
[ $failed = 0 ] || tail -n 30 "$W/cd/log"
end $daemon
