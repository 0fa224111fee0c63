package proxy

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Limits of one netlink message and of one transaction.
const (
	messageElements = 400
	batchElements   = 4000
	socketBuffer    = 32 << 20
)

// kernel is an open connection to nftables.
type kernel struct {
	conn  *nftables.Conn
	table *table
	used  *inUse // timeouts that have rules; nil: unknown
}

func openKernel() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		if err := c.SetReadBuffer(socketBuffer); err != nil {
			return err
		}
		return c.SetWriteBuffer(socketBuffer)
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// prepare makes sure that the table has our layout. It tells whether the table
// was replaced, in which case it is empty now.
func (k kernel) prepare() (replaced bool, err error) {
	ok, err := k.intact()
	if err != nil || ok {
		return false, err
	}
	return true, k.table.create(k.conn)
}

// affinity makes the rules for the timeouts in use, unless they are there.
func (k *kernel) affinity(used inUse) error {
	if k.used != nil && *k.used == used {
		return nil
	}
	k.used = nil
	if err := k.table.setAffinity(k.conn, used); err != nil {
		return err
	}
	k.used = &used
	return nil
}

// intact asks whether the table is there, in our layout.
func (k kernel) intact() (bool, error) {
	chains, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name == k.table.nft.Name && c.Name == k.table.stamp() {
			return true, nil
		}
	}
	return false, nil
}

// read lists what the kernel has.
func (k kernel) read() (elements, error) {
	out := elements{}
	for _, name := range fixed() {
		all, err := k.conn.GetSetElements(k.table.sets[name])
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", name, err)
		}
		for _, e := range all {
			out.put(name, string(e.Key), string(e.Val))
		}
	}
	return out, nil
}

// write applies a change in transactions of bounded size. All elements of one
// key change in the same transaction, unless the key alone is larger.
func (k kernel) write(c change) error {
	groups := map[string][]step{}
	for _, half := range []struct {
		what elements
		add  bool
	}{{c.remove, false}, {c.add, true}} {
		for set, m := range half.what {
			for key, value := range m {
				head := key[:min(12, len(key))]
				groups[head] = append(groups[head], step{set, half.add, nftables.SetElement{Key: []byte(key), Val: []byte(value)}})
			}
		}
	}
	var batch []step
	for _, head := range slices.Sorted(maps.Keys(groups)) {
		if len(batch) > 0 && len(batch)+len(groups[head]) > batchElements {
			if err := k.commit(batch); err != nil {
				return err
			}
			batch = nil
		}
		batch = append(batch, groups[head]...)
	}
	return k.commit(batch)
}

// step adds or removes one element.
type step struct {
	set     string
	add     bool
	element nftables.SetElement
}

// commit writes steps as one transaction, removals first.
func (k kernel) commit(steps []step) error {
	for _, add := range []bool{false, true} {
		bySet := map[string][]nftables.SetElement{}
		for _, s := range steps {
			if s.add == add {
				if !k.table.sets[s.set].IsMap {
					s.element.Val = nil
				}
				bySet[s.set] = append(bySet[s.set], s.element)
			}
		}
		for name, all := range bySet {
			send := k.conn.SetDeleteElements
			if add {
				send = k.conn.SetAddElements
			}
			for part := range slices.Chunk(all, messageElements) {
				if err := send(k.table.sets[name], part); err != nil {
					return fmt.Errorf("write set %s: %w", name, err)
				}
			}
		}
	}
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("write table %s: %w", k.table.nft.Name, err)
	}
	return nil
}

// forget removes the affinity of clients to endpoints that are gone.
func (k kernel) forget(gone []flow) error {
	if len(gone) == 0 {
		return nil
	}
	dead := make(map[flow]bool, len(gone))
	for _, f := range gone {
		dead[f] = true
	}
	for i := range timeouts {
		set := k.table.sets[clientMap(i)]
		all, err := k.conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("read set %s: %w", set.Name, err)
		}
		var drop []step
		for _, e := range all {
			if dead[flow{string(e.Key[:12]), string(e.Val)}] {
				drop = append(drop, step{set.Name, false, nftables.SetElement{Key: e.Key, Val: e.Val}})
			}
		}
		// An element may time out meanwhile; then the rest is tried one by one.
		if err := k.commit(drop); errors.Is(err, unix.ENOENT) {
			for _, s := range drop {
				if err := k.commit([]step{s}); err != nil && !errors.Is(err, unix.ENOENT) {
					return err
				}
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// Cleanup removes the cluster's table, and with it every Service of this node.
func Cleanup(cluster string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := &nftables.Table{Name: TableName(cluster), Family: nftables.TableFamilyIPv4}
	c.AddTable(t) // deleting what is not there would fail
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete table %s: %w", t.Name, err)
	}
	return nil
}
