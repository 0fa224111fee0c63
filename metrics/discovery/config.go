package discovery

import (
	"context"
	"errors"
	"net"
	"time"

	"perch/metrics/target"
)

// Config bounds what objects may cost.
type Config struct {
	AtOnce, AtOnceOfOne int           // questions under way: of all, of one namespace
	Searches, OfOne     int           // of all, of one namespace
	Body                int64         // bytes of one answer over HTTP
	Targets             int           // of one answer
	Found, FoundOfOne   int           // targets kept: of all, of one namespace
	Kept, KeptOfOne     int64         // bytes of the answers kept: of all, of one namespace
	Timeout             time.Duration // of one question; never longer than its interval
	List                time.Duration // objects are listed at least so often: Secrets change unseen
}

// Default suits a server of some hundred nodes.
func Default() Config {
	return Config{AtOnce: 16, AtOnceOfOne: 4, Searches: 1000, OfOne: 100, Body: 2 << 20, Targets: 2000, Found: 10_000, FoundOfOne: 4000, Kept: 32 << 20, KeptOfOne: 4 << 20,
		Timeout: 30 * time.Second, List: 15 * time.Second}
}

// Parts are the collaborators.
type Parts struct {
	// Searches are those of all objects, in an order that stays. It may wait for what
	// it reads of Secrets, and must end with ctx.
	Searches func(ctx context.Context) []target.Search
	Changed  func() // Found may answer differently; must not block

	// Resolve finds the address behind a name of the cluster to connect to. ours: the
	// name is one; then with err it is not found there, and nobody else is asked. nil:
	// no name is one.
	Resolve func(ctx context.Context, host string) (ip string, ours bool, err error)

	// Cluster is asked for names of Domain, as a pod of the object's namespace would;
	// nil: nobody is. Machine is asked for all others.
	Cluster *net.Resolver
	Domain  string // cluster.local
	Machine *net.Resolver
}

func (c Config) validate() error {
	if min(c.AtOnce, c.AtOnceOfOne, c.Searches, c.OfOne, c.Targets, c.Found, c.FoundOfOne) <= 0 || min(c.Body, c.Kept, c.KeptOfOne) <= 0 || min(c.Timeout, c.List) <= 0 {
		return errors.New("build discovery: limits must be positive")
	}
	return nil
}
