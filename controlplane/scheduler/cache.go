package scheduler

import (
	"cmp"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// cache knows which pods are on which node: those the watch showed and those
// decided a moment ago. It is as large as the cluster's pods.
type cache struct {
	mu    sync.Mutex
	nodes map[string]*corev1.Node
	pods  map[types.UID]placed
	on    map[string]*onNode
}

// onNode keeps what is summed up for one node.
type onNode struct {
	pods         map[types.UID]*corev1.Pod
	used, scored Amounts
}

type placed struct {
	pod  *corev1.Pod
	node string
}

func newCache() *cache {
	return &cache{nodes: map[string]*corev1.Node{}, pods: map[types.UID]placed{}, on: map[string]*onNode{}}
}

func (c *cache) setNode(node *corev1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[node.Name] = node
}

func (c *cache) dropNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes, name)
}

// put counts a pod on a node, in place of what was known of the pod before.
func (c *cache) put(pod *corev1.Pod, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.take(pod.UID)
	if c.on[node] == nil {
		c.on[node] = &onNode{map[types.UID]*corev1.Pod{}, Amounts{}, Amounts{}}
	}
	c.pods[pod.UID] = placed{pod, node}
	c.on[node].pods[pod.UID] = pod
	c.on[node].used.add(Requests(pod))
	c.on[node].scored.add(scoredRequests(pod))
}

// drop forgets a pod and answers whether it was counted anywhere.
func (c *cache) drop(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(uid)
}

func (c *cache) take(uid types.UID) bool {
	p, ok := c.pods[uid]
	if !ok {
		return false
	}
	delete(c.pods, uid)
	node := c.on[p.node]
	delete(node.pods, uid)
	node.used.sub(Requests(p.pod))
	node.scored.sub(scoredRequests(p.pod))
	if len(node.pods) == 0 {
		delete(c.on, p.node)
	}
	return true
}

func (c *cache) has(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pods[uid]
	return ok
}

// snapshot copies the sums; the objects themselves are shared and read only.
func (c *cache) snapshot() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*Node, 0, len(c.nodes))
	for name, object := range c.nodes {
		node := &Node{Object: object, Used: Amounts{}, Scored: Amounts{}}
		if have := c.on[name]; have != nil {
			node.Used.add(have.used)
			node.Scored.add(have.scored)
			for _, pod := range have.pods {
				node.Pods = append(node.Pods, pod)
			}
		}
		out = append(out, node)
	}
	slices.SortFunc(out, func(a, b *Node) int { return cmp.Compare(a.Object.Name, b.Object.Name) })
	return out
}
