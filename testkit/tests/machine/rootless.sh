# The runtime as a user, in a group of cgroup v2 that was given to the user, with single and several ids.
chmod 755 / /bin
chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap
printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >/etc/passwd
printf 'root:x:0:\nuser:x:1000:\n' >/etc/group
echo user:100000:65536 >/etc/subuid
cp /etc/subuid /etc/subgid
mkdir -p /home/user
chown 1000:1000 /home/user
chmod 1777 /tmp
groups=/sys/fs/cgroup
echo '+memory +pids +cpu' >$groups/cgroup.subtree_control
mkdir -p $groups/user/session
for file in '' /cgroup.procs /cgroup.subtree_control /cgroup.threads /session /session/cgroup.procs; do chown 1000:1000 $groups/user$file; done
echo '+memory +pids +cpu' >$groups/user/cgroup.subtree_control
cat >/home/user/script <<'END'
@BUNDLE@
SPEC=--rootless
bundle /home/user/b 'id -u; cat /proc/self/setgroups'
run() { wharf-runtime --root /home/user/state "$@"; }
check 'own id only' '0 deny' "$(echo $(run run one 2>&1))"
# A group below the one that is the user's, with a limit.
limited() {
	bundle /home/user/b "$1"
	sed -i 's#"linux": {#"linux": {"cgroupsPath":"/user/box","resources":{"memory":{"limit":33554432},"pids":{"limit":33}},#' config.json
}
limited 'sleep 1000'
run run --detach life </dev/null >/dev/null 2>/home/user/err
check "started $(cat /home/user/err)" 0 $?
check 'its limits' '33554432 33' "$(echo $(cat /sys/fs/cgroup/user/box/memory.max /sys/fs/cgroup/user/box/pids.max))"
check 'exec' 0 "$(run exec life id -u)"
run pause life
check paused paused "$(run state life | grep status | cut -d'"' -f4)"
run resume life
run update --pids-limit 44 life
check 'updated' 44 "$(cat /sys/fs/cgroup/user/box/pids.max)"
run kill life KILL
while [ "$(run state life | grep status | cut -d'"' -f4)" != stopped ]; do sleep 0.1; done
run delete life
check deleted 0 $?
check 'its group is gone' '' "$(ls -d /sys/fs/cgroup/user/box 2>/dev/null)"
# Several ids, by newuidmap and newgidmap.
bundle /home/user/b 'cat /proc/self/uid_map; touch /tmp/f'
tr -d '\n' <config.json | sed 's/"uidMappings": *\[[^]]*\]/"uidMappings": [{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65536}]/; s/"gidMappings": *\[[^]]*\]/"gidMappings": [{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65536}]/' >config.new
mv config.new config.json
check 'several ids' '0 1000 1 1 100000 65536' "$(echo $(run run several 2>&1))"
# Another user of the container.
sed -i 's/"uid": *0/"uid":7/; s#"cat /proc/self/uid_map; touch /tmp/f"#"id -u; touch /tmp/g"#' config.json
chmod 1777 rootfs/tmp
check 'a user of the container' 7 "$(run run seven 2>&1)"
check 'is another outside' 100006 "$(stat -c %u rootfs/tmp/g)"
check 'nothing is left' '' "$(ls /home/user/state)"
END
chown -R 1000:1000 /home/user
echo 0 >$groups/user/session/cgroup.procs 2>/dev/null
sh -c "echo \$\$ >$groups/user/session/cgroup.procs; exec /usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/user USER=user sh /home/user/script"
