#!/bin/sh
# vm-guest.sh: the first process of the machine that vm-test.sh boots. It says
# "ok" or "FAIL" for each thing it looks at, and switches the machine off.
export PATH=/bin:/sbin HOME=/root
mkdir -p /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
modprobe dummy numdummies=0 && ip link add eth0 type dummy && ip link set lo up && ip link set eth0 up && ip addr add 192.0.2.2/24 dev eth0 && ip route add default via 192.0.2.1
hostname vm

since() { cut -d. -f1 /proc/uptime; }
part() { echo "---- $(since)s $*"; }
ok() { echo "ok $(since)s $*"; }
bad() { # TEXT: with what the last command said
	echo "FAIL $(since)s $*"
	tail -n 60 /tmp/last
}
# expect WHAT COMMAND…: the command succeeds.
expect() {
	what=$1
	shift
	if "$@" >/tmp/last 2>&1; then ok "$what"; else bad "$what"; return 1; fi
}
# soon SECONDS WHAT COMMAND…: it does at last.
soon() {
	end=$(($(since) + $1)) what=$2
	shift 2
	until "$@" >/tmp/last 2>&1; do
		[ "$(since)" -lt $end ] || { bad "$what"; return 1; }
		sleep 1
	done
	ok "$what"
}
# same WHAT HAVE WANT
same() { echo "have $2, want $3" >/tmp/last; if [ "$2" = "$3" ]; then ok "$1: $2"; else bad "$1"; fi; }
# number QUERY: its first value; above LIMIT QUERY: it is more than that.
number() { perch query "$1" -o csv 2>&1 | head -1 | sed 's/.*,//'; }
above() {
	n=$(number "$2")
	echo "$2 is $n"
	awk -v n="$n" -v l="$1" 'BEGIN {exit !(n ~ /^[0-9.e+-]+$/ && n + 0 > l)}'
}
tops() { perch "$@"; perch "$@" | grep -v unknown | grep -qE ' [1-9][0-9]*m .* [1-9][0-9]*Mi'; }
field() { perch get "$1" "$2" -o "jsonpath=$3"; }
wanted() { case ",${VM_ONLY:-tests,service,container}," in *",$1,"*) ;; *) return 1 ;; esac; }
D=/var/lib/perch
export KUBECONFIG=$D/kubeconfig
C=/sys/fs/cgroup

part "$(uname -r), $(grep -c . /sys/fs/cgroup/cgroup.controllers) line of controllers: $(cat $C/cgroup.controllers)"
same "cgroup trees mounted" "$(grep -c ' cgroup ' /proc/mounts) of version 1, $(grep -c ' cgroup2 ' /proc/mounts) of version 2" "0 of version 1, 1 of version 2"

if wanted tests; then
	part "tests of packages"
	for p in $(cat /tests/list); do
		cd "/$p" || continue
		expect "go test $p" ./it.test -test.timeout 150s $(cat args 2>/dev/null)
	done
	cd /
fi

# A machine under systemd: processes are in scopes and services, never in the
# middle of the tree; cpuset is not switched on.
mkdir -p $C/init.scope $C/system.slice/perch.service
echo $$ >$C/init.scope/cgroup.procs
for p in $(cat $C/cgroup.procs); do echo "$p" >$C/init.scope/cgroup.procs; done 2>/dev/null
echo "+cpu +memory +pids +io" >$C/cgroup.subtree_control
echo "+cpu +memory +pids" >$C/system.slice/cgroup.subtree_control

if wanted service; then
	part "perch as a service"
	(echo 0 >$C/system.slice/perch.service/cgroup.procs && exec perch up --data-dir $D --name vm >/tmp/up.log 2>&1) &
	if ! soon 400 "the node is ready" perch wait --for=condition=Ready node/vm --timeout=5s; then
		cat /tmp/up.log
		tail -n 30 $D/log/*.log
	else
		. /service.sh
	fi
fi
if wanted container; then
	part "perch in a cgroup namespace, as a container has it"
	. /container.sh
fi
part "all is done"
sync
poweroff -f
