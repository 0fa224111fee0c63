#!/bin/bash
# nodes.sh: several "machines" on this one, each in network, mount, process,
# host name and IPC namespaces of its own. They share the kernel, the cgroup
# tree and the files; so each needs its own --name and --data-dir.
#
#   nodes.sh hub                 the bridge between them, 10.99.0.1/24
#   nodes.sh start NAME ADDRESS  a machine, for example start a 10.99.0.11
#   nodes.sh in NAME COMMAND…    run a command there
#   nodes.sh crash NAME          it loses power: all its processes are gone at once
#   nodes.sh down                all machines and the bridge go
#
# NODES_HUB and NODES_NET (first three numbers) allow a second set.
set -euo pipefail
hub=${NODES_HUB:-perch-hub}
net=${NODES_NET:-10.99.0}
state=/run/$hub

holder() { cat "$state/$1" 2>/dev/null; }
alive() { local pid; pid=$(holder "$1") && [ -n "$pid" ] && [ -d "/proc/$pid" ]; }

crash() {
	local pid
	pid=$(holder "$1") || return 0
	kill -9 "$pid" 2>/dev/null || true
	# The kernel takes the namespaces down some time after the last process.
	for _ in $(seq 100); do
		[ -d "/proc/$pid" ] || ip link show "$hub-$1" >/dev/null 2>&1 || break
		ip link del "$hub-$1" 2>/dev/null || true
		sleep 0.05
	done
	rm -f "$state/$1"
}

case ${1:-} in
hub)
	mkdir -p "$state"
	# With an address of its own: otherwise it changes when a machine goes, and
	# the others have to find the bridge anew, which takes them ten seconds.
	ip link show "$hub" >/dev/null 2>&1 || ip link add "$hub" address 02:00:00:00:00:01 type bridge
	ip addr replace "$net.1/24" dev "$hub"
	ip link set "$hub" up
	;;
start)
	name=$2 address=$3
	alive "$name" && { echo "$name runs already" >&2; exit 1; }
	# Process 1 waits for all orphans, as an init does. It must not hold our
	# output open, and asks nobody to stop: the machine crashes or goes.
	unshare -m -n -p -u -i -f --mount-proc --propagation private bash -c '
		mount -t tmpfs run /run; mkdir /run/netns; mount --make-shared /run
		hostname "$0"; ip link set lo up; trap : TERM
		while :; do sleep 3600 & wait $!; done' "$name" </dev/null >/dev/null 2>&1 &
	outer=$!
	for _ in $(seq 100); do
		pid=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null | tr -d ' ') || true
		[ -n "${pid:-}" ] && [ "$(nsenter -t "$pid" -u hostname 2>/dev/null)" = "$name" ] && break
		sleep 0.05
	done
	echo "$pid" >"$state/$name"
	disown "$outer"
	ip link del "$hub-$name" 2>/dev/null || true
	ip link add "$hub-$name" type veth peer name eth0 netns "$pid"
	ip link set "$hub-$name" master "$hub" up
	nsenter -t "$pid" -n sh -c "ip addr add $address/24 dev eth0; ip link set eth0 up; ip route add default via $net.1"
	;;
in)
	pid=$(holder "$2") || { echo "$2 does not run" >&2; exit 1; }
	shift 2
	exec nsenter -t "$pid" -m -n -p -u -i -- "$@"
	;;
crash) crash "$2" ;;
down)
	for f in "$state"/*; do [ -e "$f" ] && crash "$(basename "$f")"; done
	ip link del "$hub" 2>/dev/null || true
	rm -rf "$state"
	;;
*) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
