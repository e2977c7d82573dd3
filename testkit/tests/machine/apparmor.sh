# A profile confines the process and those that are added.
mount -t securityfs securityfs /sys/kernel/security
check 'AppArmor is on' Y "$(cat /sys/module/apparmor/parameters/enabled)"
cat >/profile <<'END'
profile wharf-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  signal,
  deny /forbidden w,
}
END
apparmor_parser --skip-cache --replace /profile
check 'profile is loaded' 0 $?
SPEC=
confined() {
	bundle /b "$1"
	sed -i 's#"process": {#"process": {"apparmorProfile":"wharf-test",#' config.json
}
confined 'cat /proc/self/attr/current; touch /allowed; touch /forbidden 2>/dev/null; echo $?'
check 'confined' 'wharf-test (enforce) 1' "$(wharf-runtime run one | tr '\n' ' ' | sed 's/ $//')"
confined 'sleep 1000'
wharf-runtime run --detach life </dev/null >/dev/null 2>&1
check started 0 $?
check 'an added process is confined' 'wharf-test (enforce)' "$(wharf-runtime exec life cat /proc/self/attr/current)"
wharf-runtime exec life touch /forbidden 2>/dev/null
check 'it may not either' 1 $?
check 'another profile for it' unconfined "$(wharf-runtime exec --apparmor unconfined life cat /proc/self/attr/current)"
wharf-runtime delete --force life
check deleted 0 $?
bundle /b 'true'
sed -i 's#"process": {#"process": {"apparmorProfile":"wharf-none",#' config.json
wharf-runtime run none 2>/err
check 'a profile that is not loaded' 1 $?
grep -q apparmor /err
check "is named: $(cat /err)" 0 $?
check 'nothing is left' '' "$(find /sys/fs/cgroup -mindepth 1 -type d)"
