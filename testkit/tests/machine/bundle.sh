check() {
	echo "$1: $3"
	[ "$2" = "$3" ] || { echo "$1: expected $2"; exit 1; }
}
# bundle FOLDER SCRIPT: one of busybox that runs the script.
bundle() {
	mkdir -p "$1/rootfs/bin" "$1/rootfs/proc" "$1/rootfs/dev" "$1/rootfs/sys" "$1/rootfs/tmp"
	cp /bin/busybox "$1/rootfs/bin/busybox"
	for applet in sh cat echo sleep id touch; do ln -sf busybox "$1/rootfs/bin/$applet"; done
	cd "$1" || exit 1
	rm -f config.json
	wharf-runtime spec $SPEC
	sed -i 's/"terminal": true/"terminal": false/; s/"readonly": true/"readonly": false/' config.json
	sed -i "s#\"sh\"#\"/bin/sh\",\"-c\",\"$2\"#" config.json
}
