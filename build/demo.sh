#!/usr/bin/env bash
# demo.sh up|down DIR: a one-node cluster with a real application under load,
# and the story it causes, each step seen through perch itself.
set -euo pipefail
cd "$(dirname "$0")/.."
verb=${1:?up or down} dir=${2:?data directory}
perch=$PWD/bin/perch
export KUBECONFIG=$dir/kubeconfig

if [ "$verb" = down ]; then
	[ -e "$dir/config.json" ] || { echo "no demo in $dir"; exit 0; }
	exec "$perch" down --data-dir "$dir" --purge
fi

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '  $ perch %s\n' "$*"; "$perch" "$@" 2>&1 | sed 's/^/    /'; }
fail() { echo "demo: $*" >&2; echo "the cluster is left running for a look: $perch status --data-dir $dir; make demo-down removes it" >&2; exit 1; }
# until SECONDS WHAT COMMAND…: retry until the command succeeds.
until_() {
	local limit=$1 what=$2 end
	shift 2
	end=$((SECONDS + limit))
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "not within $limit s: $what"
		sleep 0.5
	done
}
shop() { "$perch" -n shop "$@"; }
replicas() { shop get deploy web -o 'jsonpath={.status.readyReplicas}'; }
value() { "$perch" query "$1" -o csv | awk -F, 'NR==1{print $NF}'; }

step "1. A cluster on this machine"
"$perch" up --data-dir "$dir" --name demo --detach | tee "$dir.up"
link=$(awk '/^page/{print $2}' "$dir.up")
rm -f "$dir.up"
show status --data-dir "$dir"

step "2. The application: a shop with customers"
build/images/static.sh out/images/perch-demo.tar docker.io/library/perch-demo:1 ./cmd/perch-demo
show images load --data-dir "$dir" out/images/perch-demo.tar
"$perch" apply -f build/demo.yaml | sed 's/^/    /'
for d in web customers receiver; do shop rollout status "deploy/$d" --timeout=60s >/dev/null || fail "deploy/$d did not become ready"; done
show -n shop get pods -o wide
until_ 20 "the shop answers by its Service's name" shop exec deploy/receiver -- /perch-demo get http://web.shop.svc.cluster.local/order
show -n shop exec deploy/receiver -- /perch-demo get http://web.shop.svc.cluster.local/order

step "3. Its numbers are in the store"
has_orders() { [ -n "$(value 'sum(rate(shop_orders_total[30s])) > 0')" ]; }
until_ 60 "the shop's own metrics" has_orders
show query 'sum by (result) (rate(shop_orders_total[30s]))'
show top -n shop

step "4. Its lines can be searched"
has_lines() { shop logs deploy/web --since 5m -q '"order taken"' --tail 1 | grep -q .; }
until_ 20 "lines of the shop" has_lines
show logs deploy/web -n shop --since 5m -q '"order taken" item:ring' --tail 3

step "5. A rush of customers: the autoscaler acts"
shop scale deploy/rush --replicas=1 >/dev/null
more() { [ "$(replicas)" -gt 2 ]; }
began=$SECONDS
until_ 120 "more than 2 replicas of web" more
echo "    scaled out after $((SECONDS - began)) s"
show -n shop get hpa web
show -n shop get events --field-selector reason=SuccessfulRescale
shop scale deploy/rush --replicas=0 >/dev/null

step "6. A crash: an alert reaches its receiver"
ip=$(shop get svc receiver -o 'jsonpath={.spec.clusterIP}')
"$perch" -n kube-system create secret generic perch-alertmanager --dry-run=client -o yaml --from-literal=alertmanager.yaml="
route: {receiver: shop, routes: [{receiver: nobody, matchers: ['severity=none']}]}
receivers: [{name: nobody}, {name: shop, webhook_configs: [{url: 'http://$ip/'}]}]
" | "$perch" apply -f - >/dev/null
sleep 3 # the routes are looked at every 2 s
shop exec deploy/receiver -- /perch-demo post http://web/crash >/dev/null 2>&1 || true # the shop dies while it answers
began=$SECONDS
arrived() { shop exec deploy/receiver -- /perch-demo get http://localhost:8080/ | grep -q PodContainerRestarted; }
until_ 60 "the alert at the receiver" arrived
echo "    webhook received after about $((SECONDS - began)) s"
show alerts
show -n shop get pods -l app=web
show logs deploy/web -n shop --since 5m -q 'level:error' --tail 2

step "7. Yours"
cat <<END
    page         $link
                 (one use; another: $perch ui)
    kubeconfig   export KUBECONFIG=$dir/kubeconfig
    try          bin/perch logs deploy/web -n shop -f
                 bin/perch query 'sum by (pod) (rate(container_cpu_usage_seconds_total{namespace="shop"}[30s]))' -r 10m
                 bin/perch top -n shop
                 bin/perch -n shop scale deploy/rush --replicas=2
    stop         make demo-down
END
