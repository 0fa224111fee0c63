package apiserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// claimsPrefix holds one key per cluster IP or node port in use; its value names
// the owner. etcd decides races, also between several API servers.
const claimsPrefix = "/perch/claims/"

// probes is how many free values are guessed before all are tried in turn.
const probes = 32

var errTaken = errors.New("provided value is already allocated")

// pool is a numbered set of values, such as the addresses of a range.
type pool struct {
	name   string
	size   int
	value  func(i int) string
	number func(value string) (int, bool)
	low    int // smallest value that may be used
	first  int // values below are chosen last
}

// allocator hands out cluster IPs and node ports.
type allocator struct {
	etcd  *clientv3.Client
	ips   pool
	ports pool
	log   *slog.Logger
}

func newAllocator(etcd *clientv3.Client, cidr netip.Prefix, firstPort, lastPort uint16, log *slog.Logger) *allocator {
	base := cidr.Masked().Addr().As4()
	start := uint32(base[0])<<24 | uint32(base[1])<<16 | uint32(base[2])<<8 | uint32(base[3])
	size := 1 << (32 - cidr.Bits())
	address := func(i int) string {
		n := start + uint32(i)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
	}
	return &allocator{
		etcd: etcd, log: log,
		ips: pool{
			name: "ip", size: size - 1, value: address, low: 1, first: min(16, size/4),
			number: func(v string) (int, bool) {
				a, err := netip.ParseAddr(v)
				if err != nil || !a.Is4() || !cidr.Contains(a) {
					return 0, false
				}
				b := a.As4()
				n := int(uint32(b[0])<<24|uint32(b[1])<<16|uint32(b[2])<<8|uint32(b[3])) - int(start)
				return n, n > 0 && n < size-1
			},
		},
		ports: pool{
			name: "port", size: int(lastPort-firstPort) + 1,
			value: func(i int) string { return strconv.Itoa(int(firstPort) + i) },
			number: func(v string) (int, bool) {
				n, err := strconv.Atoi(v)
				return n - int(firstPort), err == nil && n >= int(firstPort) && n <= int(lastPort)
			},
		},
	}
}

func (p pool) key(value string) string { return path.Join(claimsPrefix, p.name, value) }

// take claims one value for an owner. It fails with errTaken when another owner
// has it.
func (a *allocator) take(ctx context.Context, p pool, value, owner string) error {
	if _, ok := p.number(value); !ok {
		return fmt.Errorf("the provided value is not in the valid range %s-%s", p.value(p.low), p.value(p.size-1))
	}
	key := p.key(value)
	r, err := a.etcd.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, owner)).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return fmt.Errorf("claim %s %s: %w", p.name, value, err)
	}
	if r.Succeeded {
		return nil
	}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Value) == owner {
		return nil
	}
	return errTaken
}

// next claims any free value for an owner. The low part of an address range is
// left for those who ask for a certain address.
func (a *allocator) next(ctx context.Context, p pool, owner string) (string, error) {
	try := func(i int) (string, bool, error) {
		v := p.value(i)
		err := a.take(ctx, p, v, owner)
		if errors.Is(err, errTaken) {
			return "", false, nil
		}
		return v, err == nil, err
	}
	for range probes {
		if v, ok, err := try(p.first + rand.IntN(p.size-p.first)); ok || err != nil {
			return v, err
		}
	}
	for i := p.size - 1; i >= p.low; i-- {
		if v, ok, err := try(i); ok || err != nil {
			return v, err
		}
	}
	return "", fmt.Errorf("range is full")
}

// free gives up a claim if the owner holds it.
func (a *allocator) free(ctx context.Context, p pool, value, owner string) error {
	key := p.key(value)
	_, err := a.etcd.Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", owner)).Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return fmt.Errorf("free %s %s: %w", p.name, value, err)
	}
	return nil
}

// repair makes the claims equal to what the services use: a crash between claim
// and service leaves a claim without owner. It runs before the server serves.
// used maps each value to its owner.
func (a *allocator) repair(ctx context.Context, p pool, used map[string]string) (removed, added int, err error) {
	r, err := a.etcd.Get(ctx, claimsPrefix+p.name+"/", clientv3.WithPrefix())
	if err != nil {
		return 0, 0, fmt.Errorf("list claims of %s: %w", p.name, err)
	}
	have := map[string]string{}
	for _, kv := range r.Kvs {
		value := strings.TrimPrefix(string(kv.Key), claimsPrefix+p.name+"/")
		have[value] = string(kv.Value)
		if used[value] != string(kv.Value) {
			if _, err := a.etcd.Delete(ctx, string(kv.Key)); err != nil {
				return removed, added, fmt.Errorf("remove claim of %s %s: %w", p.name, value, err)
			}
			removed++
		}
	}
	for value, owner := range used {
		if have[value] == owner {
			continue
		}
		if _, err := a.etcd.Put(ctx, p.key(value), owner); err != nil {
			return removed, added, fmt.Errorf("add claim of %s %s: %w", p.name, value, err)
		}
		added++
	}
	return removed, added, nil
}
