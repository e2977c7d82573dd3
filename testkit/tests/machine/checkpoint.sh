#!/bin/sh
# A container is written to files by CRIU and brought back, in the virtual machine: CRIU 3.17 of Debian does not start on newer kernels
# ("vdso: Failed to fill self vdso symtable" on 6.18).
check() {
	echo "$1: $3"
	[ "$2" = "$3" ] || { echo "$1: expected $2"; cat /ck/*.log 2>/dev/null | grep -E 'Error|Warn' | tail -20; exit 1; }
}
# What was counted to. Between opening the file anew and writing it, which is where a dump may catch it, there is nothing in it.
counted() {
	number=$(cat /b/rootfs/count)
	echo "${number:-0}"
}
criu check 2>/dev/null
check 'criu works here' 0 $?
mkdir -p /b/rootfs/bin /b/rootfs/proc /b/rootfs/dev /b/rootfs/sys
cp /bin/busybox /b/rootfs/bin/busybox
ln -sf busybox /b/rootfs/bin/sh
cd /b
wharf-runtime spec
sed -i 's/"terminal": true/"terminal": false/; s/"readonly": true/"readonly": false/' config.json
sed -i 's#"sh"#"/bin/sh","-c","i=0; while :; do i=$((i+1)); echo $i >/count; /bin/busybox sleep 0.2; done"#' config.json
# Without a network namespace of its own: dumping one, this CRIU gets EINVAL from this kernel's netlink.
tr -d '\n' <config.json | sed 's/{ *"type": *"network" *} *, *//; s/, *{ *"type": *"network" *}//' >config.new
mv config.new config.json
wharf-runtime run --detach --pid-file /pid life </dev/null >/dev/null 2>&1
check started 0 $?
while [ "$(cat /b/rootfs/count 2>/dev/null || echo 0)" -lt 5 ]; do sleep 0.1; done
wharf-runtime checkpoint --image-path /ck --leave-running life
check 'written, running on' 0 $?
check 'it runs on' running "$(wharf-runtime state life | grep status | cut -d'"' -f4)"
rm -rf /ck
wharf-runtime checkpoint --image-path /ck life
check written 0 $?
wharf-runtime state life >/dev/null 2>&1
check 'it is gone' 1 $?
before=$(counted)
sleep 1
check 'nobody counts' "$before" "$(counted)"
wharf-runtime restore --image-path /ck --detach --pid-file /pid2 --bundle /b back </dev/null >/dev/null 2>/err
check "brought back $(cat /err)" 0 $?
check 'it is running' running "$(wharf-runtime state back | grep status | cut -d'"' -f4)"
n=0
while [ "$(counted)" -le "$before" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
check 'it counts on from where it was' yes "$([ "$(counted)" -gt "$before" ] && echo yes)"
check 'its group' '0::/back' "$(cat /proc/$(cat /pid2)/cgroup)"

# ends NAME: kills and deletes it.
ends() {
	wharf-runtime kill "$1" KILL
	while [ "$(wharf-runtime state "$1" | grep status | cut -d'"' -f4)" != stopped ]; do sleep 0.1; done
	wharf-runtime delete "$1"
	check "$1 is deleted" 0 $?
}
# begins NAME: one that has counted to five.
begins() {
	rm -rf /ck /b/rootfs/count
	wharf-runtime run --detach --pid-file /pid "$1" </dev/null >/dev/null 2>&1
	check "$1 is started" 0 $?
	while [ "$(cat /b/rootfs/count 2>/dev/null || echo 0)" -lt 5 ]; do sleep 0.1; done
}
# continues NAME [WORDS]: brought back, it counts on.
continues() {
	name=$1
	shift
	before=$(counted)
	wharf-runtime restore --image-path /ck --detach --bundle /b "$@" "$name" </dev/null >/dev/null 2>/err
	check "$name is brought back $(cat /err)" 0 $?
	n=0
	while [ "$(counted)" -le "$before" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
	check "$name counts on" yes "$([ "$(counted)" -gt "$before" ] && echo yes)"
	ends "$name"
}
ends back

# A first pass that only reads memory, then the rest.
begins pass
wharf-runtime checkpoint --pre-dump --image-path /ck/first pass
check 'first pass' 0 $?
check 'it runs on after it' running "$(wharf-runtime state pass | grep status | cut -d'"' -f4)"
wharf-runtime checkpoint --image-path /ck --parent-path first pass
check 'the rest' 0 $?
[ -e /ck/parent ]
check 'pages of the first pass are not written again' 0 $?
continues pass

# Pages go to a server.
begins served
mkdir /served
criu page-server --images-dir /served --port 9990 --daemon
wharf-runtime checkpoint --page-server 127.0.0.1:9990 --image-path /ck served
check 'pages sent' 0 $?
check 'pages are with the server' yes "$(ls /served/pages-*.img >/dev/null 2>&1 && echo yes)"
check 'and not here' no "$(ls /ck/pages-*.img >/dev/null 2>&1 && echo yes || echo no)"
cp /served/*.img /ck/
continues served

# Pages come when they are touched.
begins lazy
mkfifo /status
wharf-runtime checkpoint --lazy-pages --page-server 127.0.0.1:9991 --status-fd 9 --image-path /ck lazy 9<>/status &
dump=$!
head -c 1 </status >/dev/null
criu lazy-pages --page-server --address 127.0.0.1 --port 9991 --images-dir /ck --work-dir /ck --log-file lazy.log --daemon
check 'whoever has the pages is asked' 0 $?
before=$(counted)
wharf-runtime restore --lazy-pages --image-path /ck --work-path /ck --detach --bundle /b late </dev/null >/dev/null 2>/err
check "late is brought back $(cat /err)" 0 $?
wait $dump
check 'written when all pages were asked for' 0 $?
n=0
while [ "$(counted)" -le "$before" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
check 'it counts on' yes "$([ "$(counted)" -gt "$before" ] && echo yes)"
ends late
