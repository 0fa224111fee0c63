package proxy

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// classes are the sizes of the slot maps. 12 and 60 divide evenly by most small
// numbers of endpoints; 840 does by all up to 8 and is nearly even up to 100.
var classes = [...]int{1, 12, 60, 840}

const maxSlots = 840

// classOf is the index of the smallest map in which n endpoints share evenly enough.
func classOf(n int) int {
	switch {
	case n <= 1:
		return 0
	case n <= 4:
		return 1
	case n <= 12:
		return 2
	}
	return 3
}

// Timeouts for client affinity. The kernel wants a rule for each; a Service's
// own timeout is rounded up to the next.
var timeouts = [...]time.Duration{time.Minute, 10 * time.Minute, time.Hour, 3 * time.Hour, 24 * time.Hour}

func timeoutOf(want time.Duration) int {
	for i, t := range timeouts {
		if want <= t {
			return i
		}
	}
	return len(timeouts) - 1
}

// Names of the sets and maps in the table.
const (
	setOutside  = "outside"   // keys reached from outside: masquerade
	setOnlyHere = "only-here" // keys whose outside clients get local endpoints only
	setRefuse   = "refuse"    // keys without endpoints
	setHairpin  = "hairpin"   // pods that may talk to themselves over a Service
)

func slotMap(class int) string  { return "slots-" + strconv.Itoa(classes[class]) }
func localMap(class int) string { return "local-" + strconv.Itoa(classes[class]) }
func stickySet(t int) string    { return "sticky-" + strconv.Itoa(int(timeouts[t].Seconds())) }
func clientMap(t int) string    { return "clients-" + strconv.Itoa(int(timeouts[t].Seconds())) }

// elements is the content of the table: set → key → value, in the kernel's bytes.
type elements map[string]map[string]string

func (e elements) put(set, key, value string) {
	m := e[set]
	if m == nil {
		m = map[string]string{}
		e[set] = m
	}
	m[key] = value
}

func (e elements) count() int {
	n := 0
	for _, m := range e {
		n += len(m)
	}
	return n
}

// encode writes a plan in the kernel's terms.
func encode(p Plan) elements {
	out := elements{}
	for _, f := range p.Frontends {
		key := keyBytes(f.Key)
		if len(f.Targets) == 0 {
			out.put(setRefuse, key, "")
		}
		out.fill(slotMap(classOf(len(f.Targets))), key, f.Targets)
		if f.LocalOnly {
			out.put(setOnlyHere, key, "")
			out.fill(localMap(classOf(len(f.LocalTargets))), key, f.LocalTargets)
		}
		if f.Outside {
			out.put(setOutside, key, "")
		}
		if f.Sticky > 0 {
			out.put(stickySet(timeoutOf(f.Sticky)), key, "")
		}
	}
	for _, addr := range p.Hairpin {
		b := addr.As4()
		out.put(setHairpin, string(b[:])+string(b[:]), "")
	}
	return out
}

func (e elements) fill(set, key string, targets []netip.AddrPort) {
	if len(targets) == 0 {
		return
	}
	values := make([]string, len(targets))
	for i, t := range targets {
		values[i] = targetBytes(t)
	}
	for slot, target := range share(targets, classes[classOf(len(targets))]) {
		e.put(set, key+slotBytes(slot), values[target])
	}
}

// share gives each slot to a target (by index). Shares differ by one at most,
// every target has one, and most slots keep their target when another comes or goes:
// the targets take turns, each walking the slots in an order of its own.
func share(targets []netip.AddrPort, slots int) []int {
	out := make([]int, slots)
	if len(targets) == 1 || slots == 1 {
		return out
	}
	steps := coprime(slots)
	type walk struct{ at, step int }
	walks := make([]walk, len(targets))
	for i, t := range targets {
		h := fnv.New64a()
		_, _ = h.Write([]byte(targetBytes(t))) // never fails
		sum := h.Sum64()
		walks[i] = walk{int(sum>>32) % slots, steps[int(sum&0xffffffff)%len(steps)]}
	}
	for i := range out {
		out[i] = -1
	}
	for left := slots; ; {
		for i := range walks {
			if left == 0 {
				return out
			}
			w := &walks[i]
			for out[w.at] >= 0 {
				w.at = (w.at + w.step) % slots
			}
			out[w.at] = i
			left--
		}
	}
}

// coprime lists the step widths that visit every slot.
func coprime(slots int) []int {
	var out []int
	for n := 1; n < slots; n++ {
		a, b := n, slots
		for b > 0 {
			a, b = b, a%b
		}
		if a == 1 {
			out = append(out, n)
		}
	}
	return out
}

// The kernel pads every part of a concatenation to four bytes.

func keyBytes(k Key) string {
	b := make([]byte, 0, 12)
	addr := k.Addr.As4()
	b = append(b, addr[:]...)
	b = append(b, k.Proto, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, k.Port)
	return string(append(b, 0, 0))
}

func slotBytes(slot int) string {
	return string(binary.NativeEndian.AppendUint32(nil, uint32(slot))) // numgen writes host order
}

func targetBytes(t netip.AddrPort) string {
	addr := t.Addr().As4()
	b := binary.BigEndian.AppendUint16(addr[:], t.Port())
	return string(append(b, 0, 0))
}

// flow is one Service key and an endpoint it is or was sent to.
type flow struct{ key, target string }

func (f flow) Key() Key {
	addr := netip.AddrFrom4([4]byte([]byte(f.key[:4])))
	return Key{addr, f.key[4], binary.BigEndian.Uint16([]byte(f.key[8:10]))}
}

func (f flow) Target() netip.AddrPort {
	addr := netip.AddrFrom4([4]byte([]byte(f.target[:4])))
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16([]byte(f.target[4:6])))
}

// change is what leads from one content to another.
type change struct {
	remove, add elements
	gone        []flow // endpoints that get no more traffic of a key
	served      []Key  // keys that had no endpoint and now have one
}

func (c change) empty() bool { return c.remove.count()+c.add.count() == 0 }

// diff finds what to write. An element with a new value is removed and added.
func diff(have, want elements) change {
	c := change{elements{}, elements{}, nil, nil}
	for set, w := range want {
		h := have[set]
		for key, value := range w {
			old, ok := h[key]
			if ok && old == value {
				continue
			}
			if ok {
				c.remove.put(set, key, old)
			}
			c.add.put(set, key, value)
		}
	}
	for set, h := range have {
		for key, value := range h {
			if _, ok := want[set][key]; !ok {
				c.remove.put(set, key, value)
			}
		}
	}
	c.gone, c.served = flowsOf(c, want)
	return c
}

// flowsOf finds the endpoints that were taken from a key, and keys served anew.
func flowsOf(c change, want elements) (gone []flow, served []Key) {
	lost := map[flow]bool{}
	touched := map[string]bool{} // keys that had an endpoint
	for set, m := range c.remove {
		if !isSlots(set) {
			continue
		}
		for key, value := range m {
			lost[flow{key[:12], value}] = true
			touched[key[:12]] = true
		}
	}
	for class := range classes {
		for _, set := range []string{slotMap(class), localMap(class)} {
			if len(lost) > 0 {
				for key, value := range want[set] {
					delete(lost, flow{key[:12], value})
				}
			}
			for key := range c.add[set] {
				if !touched[key[:12]] && key[12:] == slotBytes(0) {
					served = append(served, flow{key: key[:12]}.Key())
				}
			}
		}
	}
	for f := range lost {
		gone = append(gone, f)
	}
	slices.SortFunc(gone, func(a, b flow) int { return compareKeys(a.Key(), b.Key()) })
	return gone, served
}

func isSlots(set string) bool {
	for class := range classes {
		if set == slotMap(class) || set == localMap(class) {
			return true
		}
	}
	return false
}
