# vm-service.sh: looks at a perch that runs as a service. Read by vm-guest.sh.
U=$C/perch-vm
for r in runtime server telemetry agent; do
	same "role $r is in a leaf of its own" "$(cat "/proc/$(head -1 $U/system/$r/cgroup.procs)/cgroup")" "0::/perch-vm/system/$r"
	expect "memory of role $r is limited: $(cat $U/system/$r/memory.max)" grep -qE '^[0-9]+$' $U/system/$r/memory.max
done
same "the supervisor stays in its service" "$(head -1 $C/system.slice/perch.service/cgroup.procs | sed 's,.*,/proc/&/cgroup,' | xargs cat)" "0::/system.slice/perch.service"
for i in busybox perch-demo; do expect "image $i loads" perch images load --data-dir $D /images/$i.tar; done
expect "the application is taken" perch apply -f /app.yaml
soon 120 "pod limited is ready" perch wait --for=condition=Ready pod/limited --timeout=5s
rolled() { perch rollout status deploy/web --timeout=5s || { uptime; perch describe pods -l app=web | tail -n 40; perch get pods -o wide; return 1; }; }
soon 120 "web is rolled out" rolled

# Limits, in the kernel.
uid=$(field pod limited '{.metadata.uid}')
id=$(field pod limited '{.status.containerStatuses[0].containerID}' | sed 's,.*/,,')
pod=$U/burstable/pod$uid
for at in $pod $pod/$id; do
	what=$([ $at = $pod ] && echo pod || echo container)
	same "cpu limit of the $what" "$(cat $at/cpu.max)" "20000 100000"
	same "memory limit of the $what" "$(cat $at/memory.max)" 67108864
	same "cpu weight of the $what" "$(cat $at/cpu.weight)" 17 # of 102 shares
done
same "the container's processes are in its leaf" "$(cat $pod/cgroup.procs)$(wc -l <$pod/$id/cgroup.procs)" 1
same "shims are in their group" "$(ls /proc | grep -E '^[0-9]+$' | while read -r p; do case "$(readlink /proc/$p/exe)" in *containerd-shim*) cut -d: -f3 /proc/$p/cgroup ;; esac; done | sort -u)" "/perch-vm/system/shims"
same "the kernel ends all of a container at once" "$(cat $pod/$id/memory.oom.group)" 1
same "a container with a memory limit does not swap" "$(cat $pod/$id/memory.swap.max)" 0
same "a pod's processes are limited" "$(cat $pod/pids.max)" 8192

# Out of memory.
ended() { [ "$(field pod "$1" '{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode} {.status.phase}')" = "OOMKilled 137 Failed" ] || { field pod "$1" '{.status}'; return 1; }; }
soon 90 "a container that takes too much is OOMKilled" ended oom
soon 60 "so is one whose other process does" ended together
soon 60 "its kill is counted" above 0 'last_over_time(container_oom_events_total{pod="oom",container="eat"}[10m])'

# Numbers.
pods='pod="limited",container="burn"'
soon 90 "CPU is counted" above 0.05 "rate(container_cpu_usage_seconds_total{$pods}[1m])"
soon 60 "throttling is counted" above 0 "container_cpu_cfs_throttled_periods_total{$pods}"
soon 60 "memory is counted" above 100000 "container_memory_working_set_bytes{$pods}"
soon 60 "its limit is known" above 67108863 "container_spec_memory_limit_bytes{$pods}"
soon 60 "waiting for the CPU is counted" above 0 "container_pressure_cpu_waiting_seconds_total{$pods}"
soon 60 "waiting for memory is counted" above 0 'container_pressure_memory_waiting_seconds_total{pod="cache",container="fill"}'
soon 60 "page cache is counted" above 1000000 'container_memory_cache{pod="cache",container="fill"}'
soon 60 "hits of the memory limit are counted" above 0 'sum(container_memory_failcnt{pod="cache"})'
soon 60 "writes are counted" above 0 'sum(container_fs_writes_bytes_total{pod="cache"})'
soon 60 "the network is counted" above 0 'sum(container_network_receive_bytes_total{pod=~"web-.*"})'
soon 60 "the machine's memory is counted" above 100000000 'container_memory_working_set_bytes{id="/"}'
soon 60 "the machine's CPU is counted" above 1 'container_cpu_usage_seconds_total{id="/"}'
soon 60 "kubectl top nodes" tops top nodes
soon 60 "kubectl top pods" tops top pods limited
expect "perch top" perch top
cat /tmp/last
series() { perch query 'count by (__name__) ({job="kubelet",metrics_path="/metrics/cadvisor"})' -o csv | cut -d, -f1 | grep -v -E '^(up$|scrape_|perch_)' | sort -u >/tmp/series && diff /series.txt /tmp/series; }
soon 60 "the series are those of series.txt" series

# Service, exec, lines.
soon 60 "a Service answers by its name" perch exec deploy/web -- /perch-demo get http://web.default.svc.cluster.local/order
expect "exec" perch exec cache -- sh -c 'test -e /proc/self/cgroup'
soon 30 "lines" sh -c 'perch logs counter --tail 5 | grep -q "line "'

# Killed roles.
for r in agent runtime; do
	old=$(head -1 $U/system/$r/cgroup.procs)
	kill -9 "$old"
	soon 60 "$r is another process" sh -c "p=\$(head -1 $U/system/$r/cgroup.procs); [ -n \"\$p\" ] && [ \"\$p\" != $old ]"
	soon 120 "$r is ready again" sh -c "perch status --data-dir $D | grep -E '^$r +ready'"
done
soon 90 "a pod starts after that" perch run after --image=docker.io/library/busybox:latest --image-pull-policy=IfNotPresent --restart=Never -- sleep 3600
soon 90 "and runs" perch wait --for=condition=Ready pod/after --timeout=5s
same "no container was restarted" "$(perch get pods -o 'jsonpath={.items[*].status.containerStatuses[*].restartCount}' | tr -d ' 0')" ""
# Every line is there once, in order.
gaps() { perch-kubectl logs counter >/tmp/lines && awk '{if ($2 != NR) {print "line " NR " is " $0; exit 1}} END {print NR " lines"; exit NR < 200}' /tmp/lines; }
soon 60 "no line of a container was lost or doubled" gaps

expect "perch down" timeout 120 perch down --data-dir $D --purge
sleep 2
same "cgroups left" "$(find $C -name '*perch-vm*')" ""
same "mounts left" "$(grep -c perch /proc/mounts)" 0
same "links left" "$(ip -o link | grep -vcE ': (lo|eth0):')" 0
same "tables left" "$(nft list tables)" ""
same "processes left" "$(ps -o args | grep -v grep | grep -cE 'perch|shim|pause')" 0
same "files left" "$(ls -d $D /run/perch-* 2>/dev/null)" ""
