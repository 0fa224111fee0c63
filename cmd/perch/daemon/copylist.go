package daemon

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"perch/logs/cluster"
	"perch/logs/replica"
)

// copyList knows which copies of lines are at which node. Nobody asks while
// there is no other node and no query.
type copyList struct {
	self  cluster.Peer // this machine's own copies
	own   func() []replica.Copy
	store string // identity of this machine's store
	peers func() []cluster.Peer

	asking sync.Mutex // one round at a time

	mu   sync.Mutex // guards what follows
	at   time.Time  // of the last round
	have []cluster.Copy
	now  map[string]string // identity of each node's present store, as it said last

	asked map[string]bool // in the last round, by node
}

const (
	copiesGood  = 10 * time.Second // then the next query has them listed again, without waiting
	copiesOld   = time.Minute      // then it waits
	copiesNow   = time.Second      // new enough for who wants it new
	copiesLimit = 2 * time.Second  // for a node to answer
)

// list fits cluster.Parts.
func (c *copyList) list(ctx context.Context, now bool) []cluster.Copy {
	return c.former(c.all(ctx, now))
}

// former marks the copies of stores that their nodes have no more.
func (c *copyList) former(list []cluster.Copy) []cluster.Copy {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range list {
		x := &list[i]
		id := c.now[x.Node]
		if x.Node == c.self.Node {
			id = c.store
		}
		x.Former = id != "" && x.ID != id
	}
	return list
}

func (c *copyList) all(ctx context.Context, now bool) []cluster.Copy {
	out := copiesAt(c.self, c.own())
	peers := c.peers()
	if len(peers) == 0 {
		return out
	}
	c.mu.Lock()
	have, age := c.have, time.Since(c.at)
	fresh := slices.ContainsFunc(peers, func(p cluster.Peer) bool { return !c.asked[p.Node] }) // it may have lost what it had
	c.mu.Unlock()
	switch {
	case age > copiesOld || (now || fresh) && age > copiesNow:
		c.asking.Lock()
		have = c.ask(ctx, peers, copiesNow)
		c.asking.Unlock()
	case age > copiesGood && c.asking.TryLock():
		go func() {
			defer c.asking.Unlock()
			c.ask(ctx, peers, copiesGood)
		}()
	}
	return append(out, have...)
}

// ask lists them anew, unless somebody just did. Called with asking held.
func (c *copyList) ask(ctx context.Context, peers []cluster.Peer, good time.Duration) []cluster.Copy {
	c.mu.Lock()
	have, age := c.have, time.Since(c.at)
	c.mu.Unlock()
	if age < good {
		return have
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), copiesLimit) // others wait for it too
	defer cancel()
	lists := make([][]cluster.Copy, len(peers))
	stores := make([]string, len(peers))
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			var got []replica.Copy
			if head, err := getJSONHead(ctx, p.Client, p.URL+replica.ReadPrefix, &got); err == nil { // else it is away, with its copies
				lists[i], stores[i] = copiesAt(p, got), head.Get(replica.StoreHeader)
			}
		})
	}
	all.Wait()
	have = nil
	now, asked := map[string]string{}, map[string]bool{}
	c.mu.Lock()
	for i, l := range lists {
		asked[peers[i].Node] = true
		have = append(have, l...)
		if id := cmp.Or(stores[i], c.now[peers[i].Node]); id != "" {
			now[peers[i].Node] = id
		}
	}
	c.at, c.have, c.now, c.asked = time.Now(), have, now, asked
	c.mu.Unlock()
	return have
}

func copiesAt(p cluster.Peer, list []replica.Copy) (out []cluster.Copy) {
	for _, c := range list {
		out = append(out, cluster.Copy{Node: c.Owner, ID: c.ID, By: p.Node, At: c.At, From: c.From,
			Peer: cluster.Peer{Node: c.Owner, URL: p.URL + replica.ReadPrefix + c.Owner + "/" + c.ID, Client: p.Client}})
	}
	return out
}

// ownCopies is this machine as the others are asked.
func (r role) ownCopies() cluster.Peer {
	return cluster.Peer{Node: r.cfg.NodeName, URL: "http://telemetry", Client: unixClient(r.cfg.Socket("telemetry"))}
}
