# Words that the scripts for podman, containerd and dockerd share. $W is a folder of the test's own, $W/bin has our programs and the image.
set -u
PATH=$W/bin:$PATH
failed=0
# check WHAT WANTED SEEN
check() {
	if [ "$2" = "$3" ]; then echo "ok $1"; else
		echo "WRONG $1: wanted [$2], seen [$3]"
		failed=1
	fi
}
# holds WHAT COMMAND…: it succeeds within ten seconds.
holds() {
	what=$1
	shift
	n=0
	until "$@" >/dev/null 2>&1; do
		n=$((n + 1))
		if [ $n -gt 100 ]; then
			echo "WRONG $what: not in ten seconds: $*"
			failed=1
			return
		fi
		sleep 0.1
	done
	echo "ok $what"
}
# on_terminal COMMAND: its output on a terminal that nobody types at, without carriage returns.
on_terminal() {
	rm -f "$W/keys"
	mkfifo "$W/keys"
	sleep 60 >"$W/keys" &
	script -qec "$1" /dev/null <"$W/keys" | tr -d '\r'
	kill $!
}
# The limit of memory of a process, by either version of cgroups.
memory_of() {
	group=$(sed -n 's/^[0-9]*:memory://p' "/proc/$1/cgroup")
	if [ -n "$group" ]; then cat "/sys/fs/cgroup/memory$group/memory.limit_in_bytes"; else cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")/memory.max"; fi
}
# The most processes of a process's group.
pids_of() {
	group=$(sed -n 's/^[0-9]*:pids://p' "/proc/$1/cgroup")
	if [ -n "$group" ]; then cat "/sys/fs/cgroup/pids$group/pids.max"; else cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")/pids.max"; fi
}
# Ends a daemon that was started here and waits for it.
end() {
	kill "$1"
	wait "$1" 2>/dev/null
}
# The host's first id of a mapped user.
MAPPED='0 100000 65536'
squeeze() { tr -s ' \t' ' ' | sed 's/^ //; s/ $//'; }
