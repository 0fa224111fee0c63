package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"

	"perch/agent/stats"
	"perch/metrics/promapi"
)

// secondsWait is how long a query waits for the seconds that nodes keep. Four nodes at
// once are asked by all queries, of answers of 8 MiB at most (they have 180,000 values,
// 4 MiB as a rule), and one query takes a million values, 16 MB, of all of them.
const (
	secondsWait   = 3 * time.Second
	secondsAtOnce = 4
	secondsBytes  = 8 << 20
	secondsValues = 1_000_000
)

// seconds asks the nodes' doors for what they keep second by second; in a query,
// ring="1s" asks for it.
func (r role) seconds(api clients, f informers.SharedInformerFactory) (promapi.Seconds, error) {
	client, err := machineClient(api.rest)
	if err != nil {
		return nil, err
	}
	nodes, log, turns := f.Core().V1().Nodes().Lister(), r.part("seconds"), make(chan struct{}, secondsAtOnce)
	return func(ctx context.Context, ms []*promlabels.Matcher, start, end int64) (list []promapi.Second, missing []string) {
		ctx, cancel := context.WithTimeout(ctx, secondsWait)
		defer cancel()
		doors := map[string]string{}
		for _, n := range all(nodes.List) {
			door := doorOf(n, r.cfg.AgentPort)
			if door == "" || slices.ContainsFunc(ms, func(m *promlabels.Matcher) bool { return m.Name == "node" && !m.Matches(n.Name) }) {
				continue
			}
			doors[n.Name] = door
		}
		return gatherSeconds(ctx, doors, turns, func(ctx context.Context, node string) ([]promapi.Second, error) {
			got, err := secondsOf(ctx, client, doors[node], ms, start, end)
			if err != nil {
				log.Debug("seconds of a node not read", "node", node, "err", err)
			}
			return got, err
		})
	}, nil
}

// gatherSeconds asks the nodes that are keys of doors, as many at once as turns has
// room for, until they have given as many values as one query takes.
func gatherSeconds(ctx context.Context, doors map[string]string, turns chan struct{}, ask func(context.Context, string) ([]promapi.Second, error)) (list []promapi.Second, missing []string) {
	var mu sync.Mutex
	var asked sync.WaitGroup
	left, over := secondsValues, 0
	one := func(node string) {
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-ctx.Done():
		}
		mu.Lock()
		full := left <= 0
		mu.Unlock()
		var got []promapi.Second
		err := ctx.Err()
		if err == nil && !full {
			got, err = ask(ctx, node)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, s := range got {
			left -= len(s.T)
		}
		switch {
		case err != nil:
			missing = append(missing, node)
		case full || left < 0:
			over++
		default:
			list = append(list, got...)
		}
	}
	for node := range doors {
		asked.Go(func() { one(node) })
	}
	asked.Wait()
	slices.Sort(missing)
	if over > 0 {
		missing = append(missing, fmt.Sprintf("%d nodes whose values are more than the %d that one query takes (ask for fewer series or pods)", over, secondsValues))
	}
	return list, missing
}

// doorOf is where a node's kubelet API is; "" while the node has not told.
func doorOf(n *corev1.Node, port int) string {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return net.JoinHostPort(a.Address, strconv.Itoa(cmp.Or(int(n.Status.DaemonEndpoints.KubeletEndpoint.Port), port)))
		}
	}
	return ""
}

func secondsOf(ctx context.Context, client *http.Client, door string, ms []*promlabels.Matcher, start, end int64) ([]promapi.Second, error) {
	want := make([]stats.Matcher, 0, len(ms))
	for _, m := range ms {
		want = append(want, stats.Matcher{Name: m.Name, Type: m.Type.String(), Value: m.Value})
	}
	match, err := json.Marshal(want)
	if err != nil {
		return nil, fmt.Errorf("ask for seconds: %w", err)
	}
	q := url.Values{"match": {string(match)}, "start": {strconv.FormatInt(start, 10)}, "end": {strconv.FormatInt(end, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+door+"/perch/v1/seconds?"+q.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for seconds: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask for seconds: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask for seconds: %s", resp.Status)
	}
	var list []stats.SecondsSeries
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, secondsBytes)).Decode(&list); err != nil {
		return nil, fmt.Errorf("read seconds: %w", err)
	}
	out := make([]promapi.Second, 0, len(list))
	for _, s := range list {
		if len(s.T) == len(s.V) {
			out = append(out, promapi.Second{Labels: promlabels.FromMap(s.Labels), T: s.T, V: s.V, End: s.End})
		}
	}
	return out, nil
}
