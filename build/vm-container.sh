# vm-container.sh: perch where a container manager has put it: its cgroup looks
# like the root, and perch itself is in it. Read by vm-guest.sh.
mkdir -p $C/box/inner
echo "+cpu +memory +pids +io" >$C/box/cgroup.subtree_control
(
	echo 0 >$C/box/inner/cgroup.procs
	exec /bin/unshare -C -m --propagation private sh -c "umount $C; mount -t cgroup2 cgroup2 $C; exec perch up --data-dir $D-box --name box" >/tmp/box.log 2>&1
) &
export KUBECONFIG=$D-box/kubeconfig
if soon 400 "the node is ready" perch wait --for=condition=Ready node/vm --timeout=5s; then
	expect "image loads" perch images load --data-dir $D-box /images/perch-demo.tar
	expect "a pod is taken" perch run burn --image=docker.io/library/perch-demo:1 --overrides='{"spec": {"containers": [{"name": "burn", "image": "docker.io/library/perch-demo:1", "args": ["burn"], "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}}}]}}'
	soon 90 "it runs" perch wait --for=condition=Ready pod/burn --timeout=5s
	uid=$(field pod burn '{.metadata.uid}')
	same "its limits are in force" "$(cat $C/box/inner/perch-box/guaranteed/pod$uid/memory.max $C/box/inner/perch-box/guaranteed/pod$uid/cpu.max | xargs)" "33554432 10000 100000"
	soon 60 "its numbers are counted" above 0 'container_cpu_usage_seconds_total{pod="burn",container="burn"}'
	soon 60 "kubectl top nodes" tops top nodes
else
	cat /tmp/box.log
	tail -n 30 $D-box/log/*.log
fi
pid=$(head -1 $C/box/inner/cgroup.procs $C/box/inner/*/cgroup.procs 2>/dev/null | grep -m1 -E '^[0-9]')
expect "perch down" /bin/nsenter -t "$pid" -C -m timeout 120 perch down --data-dir $D-box --purge
same "cgroups left" "$(find $C/box -name '*perch*')" ""
