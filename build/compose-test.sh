#!/bin/bash
# compose-test.sh: proves docker-compose.yml with Debian's Docker, started here
# with a data directory of its own, and that perch works beside a Docker that
# drops what is forwarded. Needs root and bin/perch (or PERCH).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD perch=${PERCH:-$PWD/bin/perch}
work=/var/lib/perch-compose
export DOCKER_HOST=unix://$work/docker.sock COMPOSE_PROJECT_NAME=perchtest DOCKER_BUILDKIT=0 PERCH_API_PORT=46443 PERCH_WEB_PORT=49443
[ "$(id -u)" = 0 ] || { echo "run as root" >&2; exit 2; }

began=$SECONDS
step() { printf '%3ds %s\n' $((SECONDS - began)) "$*"; }
# until SECONDS WHAT COMMAND…
until_() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >"$work/last" 2>&1; do
		[ $SECONDS -lt $end ] || { echo "not reached: $what" >&2; tail -20 "$work/last" >&2; return 1; }
		sleep 0.5
	done
	step "$what"
}

if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null; then
	step "installing docker.io and docker-compose"
	log=$(mktemp)
	# The daemon of the package must not start: this script runs its own.
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] && policy= || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; }
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install docker.io docker-compose >"$log" 2>&1 || { tail -20 "$log" >&2; exit 1; }
	[ -z "$policy" ] || rm -f $policy
	rm -f "$log"
fi

[ ! -e $work ] || { echo "$work exists: an interrupted run; look what is mounted there and remove it" >&2; exit 1; }
! iptables -S 2>/dev/null | grep -q DOCKER || { echo "a Docker runs here already, and this test starts its own: stop that one first" >&2; exit 1; }
mkdir -p $work
iptables-save >$work/rules
forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
pid=
finish() {
	code=$?
	set +e
	if [ $code != 0 ] && [ -n "$pid" ]; then
		for c in server worker1 worker2; do echo "== $c"; docker-compose logs --tail=25 $c 2>/dev/null | tail -25; done >&2
		tail -5 $work/dockerd.log >&2
	fi
	[ -d $work/beside ] && "$perch" down --data-dir $work/beside --purge >/dev/null 2>&1
	if [ -n "$pid" ]; then
		docker-compose down -v --remove-orphans --timeout 60 >/dev/null 2>&1
		kill "$pid" 2>/dev/null
		for _ in $(seq 100); do [ -d /proc/$pid ] || break; sleep 0.1; done
		[ ! -d /proc/$pid ] || kill -9 "$pid"
	fi
	for m in $(awk -v w="$work/" 'index($2, w) == 1 {print $2}' /proc/self/mounts | sort -r); do umount -l "$m"; done
	# What dockerd leaves on purpose.
	ip link del perchdocker0 2>/dev/null
	iptables-restore <$work/rules
	for t in filter nat; do # which are not in there if they were empty
		grep -q "^\*$t" $work/rules && continue
		iptables -t $t -F; iptables -t $t -X
		[ $t = nat ] || iptables -P FORWARD ACCEPT
		nft delete table ip $t 2>/dev/null
	done
	echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
	rm -rf $work
	rmdir /sys/fs/cgroup/*/docker /sys/fs/cgroup/docker 2>/dev/null
	[ $code = 0 ] && step "all is gone" || echo "compose-test failed" >&2
	exit $code
}
trap finish EXIT
step "starting dockerd"
echo "{}" >$work/daemon.json
# Docker gives a privileged container every capability the kernel knows. Some
# virtual machines withhold CAP_SYS_RESOURCE even from root; there runc gets
# lists without it.
if [ $((0x$(awk '/^CapBnd/ {print $2}' /proc/self/status) >> 24 & 1)) = 0 ]; then
	step "this machine withholds CAP_SYS_RESOURCE: doing without"
	cat >$work/runc <<-'SH'
		#!/bin/sh
		next=
		for a in "$@"; do
			case $next in
			--bundle) f=$a/config.json ;;
			--process) f=$a ;;
			*) f= ;;
			esac
			next=$a
			[ -z "$f" ] || sed -i 's/"CAP_SYS_RESOURCE",//g; s/,"CAP_SYS_RESOURCE"//g' "$f"
		done
		exec runc "$@"
	SH
	chmod +x $work/runc
	echo '{"runtimes": {"less": {"path": "'$work/runc'"}}, "default-runtime": "less"}' >$work/daemon.json
fi
ip link add perchdocker0 type bridge
ip addr add 172.29.98.1/24 dev perchdocker0
setsid dockerd --data-root $work/data --exec-root $work/exec --pidfile $work/docker.pid --host $DOCKER_HOST --bridge perchdocker0 \
	--config-file $work/daemon.json >$work/dockerd.log 2>&1 &
pid=$!
until_ 30 "dockerd answers" docker version

mkdir -p $work/context/bin
ln "$perch" $work/context/bin/perch 2>/dev/null || cp "$perch" $work/context/bin/perch
cp Dockerfile $work/context/
docker build -q -t perch $work/context >$work/last 2>&1 || { cat $work/last >&2; exit 1; }
step "image built: $(docker image inspect perch --format '{{.Size}}') bytes"

docker-compose up -d --no-build >$work/last 2>&1 || { cat $work/last >&2; exit 1; }
kubectl() { docker-compose exec -T server /perch "$@"; }
until_ 90 "three nodes are ready" sh -c '[ "$(docker-compose exec -T server /perch get nodes --no-headers | grep -cw Ready)" = 3 ]'
kubectl get nodes -o wide

"$root/build/images/static.sh" $work/demo.tar docker.io/library/perch-demo:1 ./cmd/perch-demo
for n in server worker1 worker2; do
	docker cp -q $work/demo.tar "$(docker-compose ps -q $n)":/demo.tar 2>/dev/null || docker cp $work/demo.tar "$(docker-compose ps -q $n)":/demo.tar >/dev/null
	docker-compose exec -T $n /perch images load /demo.tar
done
manifest() {
	cat <<-YAML
		apiVersion: apps/v1
		kind: Deployment
		metadata: {name: web}
		spec:
		  replicas: $1
		  selector: {matchLabels: {app: web}}
		  template:
		    metadata: {labels: {app: web}}
		    spec:
		      terminationGracePeriodSeconds: 1
		      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]
		      containers:
		      - name: web
		        image: docker.io/library/perch-demo:1
		        args: [web]
		        ports: [{name: http, containerPort: 8080}]
		        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
		---
		apiVersion: v1
		kind: Service
		metadata: {name: web}
		spec: {selector: {app: web}, ports: [{port: 8080, targetPort: http}]}
	YAML
}
manifest 3 | kubectl apply -f -
kubectl rollout status deploy/web --timeout=60s | tail -1
kubectl get pods -o wide
nodes=$(kubectl get pods -o 'jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}' | sort -u | wc -l)
[ "$nodes" = 3 ] || { echo "pods run on $nodes nodes, want 3" >&2; exit 1; }
for pod in $(kubectl get pods -o name); do
	for ip in web $(kubectl get pods -o 'jsonpath={.items[*].status.podIP}'); do
		until_ 15 "$pod reaches $ip" docker-compose exec -T server /perch exec "${pod#pod/}" -- /perch-demo get "http://$ip:8080/order"
	done
	until_ 15 "logs of $pod" sh -c "docker-compose exec -T server /perch logs ${pod#pod/} --tail 1 2>&1 | grep -v without | grep -q order"
done
until_ 60 "top nodes covers three" sh -c '[ "$(docker-compose exec -T server /perch top nodes --no-headers | grep -vc unknown)" = 3 ]'
step "restarting a worker and the server"
docker-compose restart -t 60 worker1 server >/dev/null 2>&1
until_ 90 "three nodes are ready again" sh -c '[ "$(docker-compose exec -T server /perch get nodes --no-headers | grep -cw Ready)" = 3 ]'
until_ 60 "all pods are ready again" sh -c '[ "$(docker-compose exec -T server /perch get deploy web -o jsonpath={.status.readyReplicas})" = 3 ]'
for pod in $(kubectl get pods -o name); do
	until_ 15 "$pod reaches web again" docker-compose exec -T server /perch exec "${pod#pod/}" -- /perch-demo get http://web:8080/order
done

# Docker drops what is forwarded where it switched forwarding on itself.
iptables -P FORWARD DROP
step "perch beside this Docker: $(iptables -S FORWARD | head -1)"
"$perch" up --data-dir $work/beside --name beside --node-name beside --api-port 48443 --web-port 48444 --agent-port 48250 --forward-port 48224 --peer-port 48380 \
	--cluster-cidr 10.82.0.0/16 --service-cidr 10.83.0.0/16 --detach >$work/last 2>&1 || { cat $work/last >&2; exit 1; }
grep ready $work/last | tail -1
export KUBECONFIG=$work/beside/kubeconfig
"$perch" images load --data-dir $work/beside $work/demo.tar
manifest 2 | "$perch" apply -f -
"$perch" rollout status deploy/web --timeout=60s | tail -1
first=$("$perch" get pods -o 'jsonpath={.items[0].metadata.name}')
for ip in web $("$perch" get pods -o 'jsonpath={.items[*].status.podIP}'); do
	until_ 15 "a pod beside Docker reaches $ip" "$perch" exec "$first" -- /perch-demo get "http://$ip:8080/order"
done
"$perch" get node beside -o 'jsonpath={.status.conditions[?(@.type=="FirewallOpen")].message}{"\n"}'
"$perch" down --data-dir $work/beside --purge 2>&1 | tail -1
[ -z "$(iptables -S FORWARD | grep perch-beside)" ] || { echo "rules were left in FORWARD" >&2; exit 1; }
docker-compose exec -T server /perch get nodes >/dev/null
docker-compose down -v --timeout 90 >$work/last 2>&1 || { cat $work/last >&2; exit 1; }
step "taken down"
