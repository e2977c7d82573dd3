# The whole engine on pure cgroup v2: run, limits, an OOM kill, a published port, a killed daemon. Runs as root in the guest.
set -e
mkdir -p /w/image/bin /w/image/etc /w/image/tmp
cp /bin/busybox /w/image/bin/busybox
for applet in sh cat tail sleep httpd mkdir hostname echo true mknod; do ln -s busybox /w/image/bin/$applet; done
echo 'root:x:0:0:root:/root:/bin/sh' >/w/image/etc/passwd
tar -C /w/image -cf /w/busybox.tar .
export DOCKER_HOST=unix:///w/s

launch() {
	dockerd --data-root /w/d --exec-root /w/r --pidfile /w/pid --host unix:///w/s --bridge wh0 --bridge-create --firewall-table wh >>/w/log 2>&1 &
	daemon=$!
	i=0
	until docker version >/dev/null 2>&1; do
		i=$((i + 1))
		if [ $i -gt 300 ] || ! kill -0 $daemon; then cat /w/log; exit 1; fi
		sleep 0.1
	done
}
expect() { # expect WHAT IS WANTED
	[ "$2" = "$3" ] || { echo "$1: got [$2], wanted [$3]"; tail -n 20 /w/log; exit 1; }
	echo "ok $1"
}
page() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 "$1" "$2" | tail -n 1; }

launch
expect "cgroup version" "$(docker info --format '{{.CgroupVersion}} {{.CgroupDriver}}')" "2 cgroupfs"
expect "hello" "$(docker run --rm wharf/hello | grep -c 'Hello from Wharf')" 1
docker import /w/busybox.tar busybox >/dev/null
limits=$(docker run --rm -m 64m --pids-limit 20 --cpus 0.5 busybox cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max)
expect "limits" "$(echo $limits)" "67108864 20 50000 100000"
expect "cgroup namespace" "$(docker run --rm busybox cat /proc/self/cgroup)" "0::/"
code=0; docker run --name big -m 16m --memory-swap 16m busybox tail /dev/zero || code=$?
expect "out of memory" "$code" 137
i=0; until [ "$(docker inspect -f '{{.State.OOMKilled}}' big)" = true ] || [ $i -gt 50 ]; do i=$((i + 1)); sleep 0.1; done
expect "OOMKilled" "$(docker inspect -f '{{.State.OOMKilled}}' big)" true
docker rm big >/dev/null
if docker run --rm busybox sh -c 'mknod /tmp/kmsg c 1 11 && echo x >/tmp/kmsg' 2>/dev/null; then echo "a device that is not allowed was opened"; exit 1; fi
docker run --rm busybox sh -c 'mknod /tmp/null c 1 3 && echo x >/tmp/null'
docker run -d --name web -p 8080:80 busybox sh -c 'mkdir /www; echo served >/www/index.html; exec httpd -f -p 80 -h /www' >/dev/null
i=0; until [ "$(page 127.0.0.1 8080)" = served ] || [ $i -gt 50 ]; do i=$((i + 1)); sleep 0.2; done
expect "published port" "$(page 127.0.0.1 8080)" served
kill -9 $daemon
expect "port without a daemon" "$(page 127.0.0.1 8080)" served
launch
expect "adopted" "$(docker inspect -f '{{.State.Status}}' web)" running
docker exec web sh -c 'exit 7' && code=0 || code=$?
expect "exec" "$code" 7
docker pause web >/dev/null
expect "paused" "$(docker inspect -f '{{.State.Status}}' web)" paused
docker unpause web >/dev/null
docker rm -f web >/dev/null
expect "nothing left" "$(find /sys/fs/cgroup/docker -mindepth 1 -type d | wc -l) $(ls /w/r/tasks | wc -l)" "0 0"
kill $daemon
wait $daemon
[ ! -e /sys/class/net/wh0 ] || { echo "the bridge is left"; exit 1; }
echo "all ok"
