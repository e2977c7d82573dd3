#!/bin/sh
# Runs containers by wharf-runtime in the virtual machine.

# Makes a bundle of busybox with limits, whose process is the shell command given.
bundle() {
	mkdir -p /b/rootfs/bin
	cp /bin/busybox /b/rootfs/bin/busybox
	ln -sf busybox /b/rootfs/bin/sh
	cd /b
	rm -f config.json
	wharf-runtime spec
	sed -i 's/"terminal": true/"terminal": false/' config.json
	sed -i "s#\"sh\"#\"/bin/sh\",\"-c\",\"$1\"#" config.json
	sed -i 's#"resources": {#"resources": {"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":33},#' config.json
}
check() {
	echo "$1: $3"
	[ "$2" = "$3" ] || { echo "$1: expected $2"; exit 1; }
}
bundle '/bin/busybox cat /proc/self/cgroup /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; exit 9'
check output '0::/ 33554432 33' "$(wharf-runtime run limits | tr '\n' ' ' | sed 's/ $//')"
wharf-runtime run limits >/dev/null
check status 9 $?
bundle '/bin/busybox tail /dev/zero'
wharf-runtime run oom
check 'killed for want of memory' 137 $?
bundle '/bin/busybox sleep 1000'
wharf-runtime run --detach --pid-file /pid life </dev/null >/dev/null 2>&1
check started 0 $?
check 'exec is in the group' 0::/ "$(wharf-runtime exec life /bin/busybox cat /proc/self/cgroup)"
check 'seen from the host' '0::/life' "$(cat /proc/$(cat /pid)/cgroup)"
wharf-runtime kill life KILL
while [ -d /proc/$(cat /pid) ] && ! grep -q '^State:.Z' /proc/$(cat /pid)/status; do sleep 0.1; done
wharf-runtime delete life
check deleted 0 $?
check 'nothing is left' '' "$(find /sys/fs/cgroup -mindepth 1 -type d)"
