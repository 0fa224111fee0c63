package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// layout is the version of the sets and rules below. A table made by another
// version, or for other CIDRs, is replaced as a whole.
const layout = 2

// clientsLimit is how many clients one affinity map remembers. When it is full,
// further clients are spread as if their Service had no affinity.
const clientsLimit = 65536

// table is the shape of the nftables table: its sets and its fixed rules.
type table struct {
	cfg     Config
	podCIDR netip.Prefix
	nft     *nftables.Table
	sets    map[string]*nftables.Set
}

// Registers: the key in 00–03, the endpoint in 04–05, scratch in 08.
const (
	regAddr   = unix.NFT_REG32_00
	regProto  = unix.NFT_REG32_01
	regPort   = unix.NFT_REG32_02
	regSlot   = unix.NFT_REG32_03
	regTarget = unix.NFT_REG32_04
	regTPort  = unix.NFT_REG32_05
	regTmp    = unix.NFT_REG32_08
)

// TableName is the name of the cluster's table, family ip.
func TableName(cluster string) string { return "perch-" + cluster }

func newTable(cfg Config, podCIDR netip.Prefix) (*table, error) {
	t := &table{cfg: cfg, podCIDR: podCIDR, sets: map[string]*nftables.Set{},
		nft: &nftables.Table{Name: TableName(cfg.Cluster), Family: nftables.TableFamilyIPv4}}
	key := []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService}
	// The slot is of type mark: with type integer the kernel is fine, but some nft programs crash on listing.
	slotKey := append(key[:3:3], nftables.TypeMark)
	clientKey := append(key[:3:3], nftables.TypeIPAddr)
	target := []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeInetService}

	var err error
	add := func(name string, key, value []nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: t.nft, Name: name, Concatenation: true, IsMap: value != nil}
		var e error
		if s.KeyType, e = nftables.ConcatSetType(key...); e != nil {
			err = e
		}
		if value != nil {
			if s.DataType, e = nftables.ConcatSetType(value...); e != nil {
				err = e
			}
		}
		t.sets[name] = s
		return s
	}
	for class := range classes {
		add(slotMap(class), slotKey, target)
		add(localMap(class), slotKey, target)
	}
	for _, name := range []string{setOutside, setOnlyHere, setRefuse} {
		add(name, key, nil)
	}
	add(setHairpin, []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIPAddr}, nil)
	for i := range timeouts {
		add(stickySet(i), key, nil)
		clients := add(clientMap(i), clientKey, target)
		clients.Dynamic, clients.HasTimeout, clients.Timeout, clients.Size = true, true, timeouts[i], clientsLimit
	}
	if err != nil {
		return nil, fmt.Errorf("compose table %s: %w", t.nft.Name, err)
	}
	return t, nil
}

// fixed names the sets whose content encode decides; the others belong to the kernel.
func fixed() []string {
	out := []string{setOutside, setOnlyHere, setRefuse, setHairpin}
	for class := range classes {
		out = append(out, slotMap(class), localMap(class))
	}
	for i := range timeouts {
		out = append(out, stickySet(i))
	}
	return out
}

// stamp is the name of an empty chain that tells which layout a table has.
func (t *table) stamp() string {
	h := fnv.New32a()
	_, _ = fmt.Fprint(h, layout, t.cfg.ServiceCIDR, t.cfg.ClusterCIDR, t.cfg.Mark, t.podCIDR) // never fails
	return fmt.Sprintf("layout-%08x", h.Sum32())
}

// create replaces the whole table by one without elements, in one transaction.
func (t *table) create(c *nftables.Conn) error {
	c.AddTable(t.nft) // so that there is one to delete
	c.DelTable(t.nft)
	c.AddTable(t.nft)
	for i := range t.ordered() {
		if err := c.AddSet(t.ordered()[i], nil); err != nil {
			return fmt.Errorf("create table %s: %w", t.nft.Name, err)
		}
	}
	c.AddChain(&nftables.Chain{Name: t.stamp(), Table: t.nft})
	t.rules(c)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("create table %s: %w", t.nft.Name, err)
	}
	return nil
}

func (t *table) ordered() []*nftables.Set {
	var out []*nftables.Set
	for _, name := range fixed() {
		out = append(out, t.sets[name])
	}
	for i := range timeouts {
		out = append(out, t.sets[clientMap(i)])
	}
	return out
}

// builder adds rules to one chain.
type builder struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func (b builder) rule(parts ...[]expr.Any) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	b.conn.AddRule(&nftables.Rule{Table: b.table, Chain: b.chain, Exprs: all})
}

// rules writes the fixed rules. Packets that start a connection walk:
//
//	prerouting, output → services                       for ClusterIPs
//	                   → outside → [local] or services  for external addresses
//	                   → nodeports → …                  for the node's own addresses
//	postrouting          masquerade hairpins, and what came from outside and leaves to another node
//	input, forward, output filter: refuse what has no endpoint
func (t *table) rules(c *nftables.Conn) {
	chain := func(name string) builder {
		return builder{c, t.nft, c.AddChain(&nftables.Chain{Name: name, Table: t.nft})}
	}
	hook := func(name string, kind nftables.ChainType, at *nftables.ChainHook, prio *nftables.ChainPriority) builder {
		return builder{c, t.nft, c.AddChain(&nftables.Chain{Name: name, Table: t.nft, Type: kind, Hooknum: at, Priority: prio})}
	}
	byAddr, byPort := t.loadKey(loadAddr()), t.loadKey(loadAny())
	t.balance(chain, "services", byAddr)
	t.balance(chain, "node", byPort)
	for name, load := range map[string][]expr.Any{"services": byAddr, "node": byPort} {
		only := chain(name + "-local")
		for class := range classes {
			only.rule(t.pick(load, class, localMap(class)), dnat())
		}
		only.rule(verdict(expr.VerdictDrop, "")) // the load balancer shall look elsewhere

		outside := chain(name + "-outside")
		outside.rule(load, t.in(setOnlyHere), t.sourceIsOutside(), verdict(expr.VerdictGoto, name+"-local"))
		outside.rule(t.setMark(), verdict(expr.VerdictGoto, name))
	}
	entry := chain("entry")
	entry.rule(destination(t.cfg.ServiceCIDR), verdict(expr.VerdictGoto, "services"))
	entry.rule(byAddr, t.in(setOutside), verdict(expr.VerdictGoto, "services-outside"))
	entry.rule(byPort, t.in(setOutside), t.toNode(), verdict(expr.VerdictGoto, "node-outside"))

	hook("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest).
		rule(verdict(expr.VerdictJump, "entry"))
	hook("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest).
		rule(verdict(expr.VerdictJump, "entry"))

	post := hook("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	post.rule([]expr.Any{source(regAddr), &expr.Payload{DestRegister: regProto, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}},
		t.in(setHairpin), []expr.Any{&expr.Masq{}})
	post.rule(t.marked(), destination(t.podCIDR), verdict(expr.VerdictReturn, "")) // its reply passes here anyway: keep the client's address
	post.rule(t.marked(), t.clearMark(), []expr.Any{&expr.Masq{}})

	refuse := chain("refuse")
	refuse.rule(protoIs(6), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
	refuse.rule([]expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}) // port unreachable
	for name, at := range map[string]*nftables.ChainHook{
		"filter-input": nftables.ChainHookInput, "filter-forward": nftables.ChainHookForward, "filter-output": nftables.ChainHookOutput,
	} {
		f := hook(name, nftables.ChainTypeFilter, at, nftables.ChainPriorityRef(-1)) // before other filters may swallow it
		// What still carries a Service address found no endpoint or no such port.
		f.rule(destination(t.cfg.ServiceCIDR), verdict(expr.VerdictGoto, "refuse"))
		f.rule(byAddr, t.in(setRefuse), verdict(expr.VerdictGoto, "refuse"))
		f.rule(byPort, t.in(setRefuse), t.toNode(), verdict(expr.VerdictGoto, "refuse"))
	}
}

// balance makes the chain that sends a key to one of its endpoints.
func (t *table) balance(chain func(string) builder, name string, load []expr.Any) {
	plain := chain(name + "-plain")
	for class := range classes {
		plain.rule(t.pick(load, class, slotMap(class)), dnat())
	}
	chain(affinityChain(name)) // empty until setAffinity
	first := chain(name)
	first.rule(verdict(expr.VerdictJump, affinityChain(name)))
	first.rule(verdict(expr.VerdictGoto, name+"-plain"))
}

// inUse marks the timeouts that some Service has.
type inUse [len(timeouts)]bool

func (e elements) timeouts() (out inUse) {
	for i := range timeouts {
		out[i] = len(e[stickySet(i)]) > 0
	}
	return out
}

func affinityChain(name string) string { return name + "-affinity" }

// setAffinity makes the rules for client affinity with the timeouts in use, and
// removes those for others, in one transaction. The rules exist only while
// needed because some versions of the nft program (1.0.6) abort when they list them.
func (t *table) setAffinity(c *nftables.Conn, used inUse) error {
	for name, load := range map[string][]expr.Any{"services": t.loadKey(loadAddr()), "node": t.loadKey(loadAny())} {
		first := builder{c, t.nft, &nftables.Chain{Name: affinityChain(name), Table: t.nft}}
		c.FlushChain(first.chain)
		for i := range timeouts {
			own := name + "-" + stickySet(i)
			sticky := builder{c, t.nft, c.AddChain(&nftables.Chain{Name: own, Table: t.nft})}
			c.FlushChain(sticky.chain)
			if !used[i] {
				c.DelChain(sticky.chain)
				continue
			}
			t.remember(sticky, load, i, name+"-plain")
			first.rule(load, t.in(stickySet(i)), verdict(expr.VerdictGoto, own))
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write affinity rules of table %s: %w", t.nft.Name, err)
	}
	return nil
}

// remember makes the rules of one timeout.
func (t *table) remember(sticky builder, load []expr.Any, timeout int, otherwise string) {
	clients := t.sets[clientMap(timeout)]
	note := func(op uint32) []expr.Any {
		return []expr.Any{source(regSlot), &expr.Dynset{
			SrcRegKey: regAddr, SrcRegData: regTarget, SetName: clients.Name, SetID: clients.ID, Operation: op,
		}}
	}
	// A known client goes where it went, and its time starts anew.
	sticky.rule(load, []expr.Any{source(regSlot)}, t.lookup(clients.Name), note(unix.NFT_DYNSET_OP_UPDATE), dnat())
	for class := range classes {
		sticky.rule(t.pick(load, class, slotMap(class)), note(unix.NFT_DYNSET_OP_ADD), dnat())
	}
	sticky.rule(verdict(expr.VerdictGoto, otherwise)) // when the map is full
}

// pick draws a slot and finds its endpoint.
func (t *table) pick(load []expr.Any, class int, set string) []expr.Any {
	out := append([]expr.Any{}, load...)
	if classes[class] == 1 {
		out = append(out, &expr.Immediate{Register: regSlot, Data: []byte{0, 0, 0, 0}})
	} else {
		out = append(out, &expr.Numgen{Register: regSlot, Modulus: uint32(classes[class]), Type: unix.NFT_NG_RANDOM})
	}
	return append(out, t.lookup(set)...)
}

func (t *table) lookup(name string) []expr.Any {
	s := t.sets[name]
	return []expr.Any{&expr.Lookup{SourceRegister: regAddr, DestRegister: regTarget, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

func (t *table) in(name string) []expr.Any {
	s := t.sets[name]
	return []expr.Any{&expr.Lookup{SourceRegister: regAddr, SetName: s.Name, SetID: s.ID}}
}

func (t *table) loadKey(addr expr.Any) []expr.Any {
	return []expr.Any{
		addr,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regProto},
		&expr.Payload{DestRegister: regPort, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

func loadAddr() expr.Any {
	return &expr.Payload{DestRegister: regAddr, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
}

func loadAny() expr.Any { return &expr.Immediate{Register: regAddr, Data: []byte{0, 0, 0, 0}} }

func source(register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
}

func dnat() []expr.Any {
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: regTarget, RegProtoMin: regTPort}}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func protoIs(n byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regTmp}, &expr.Cmp{Op: expr.CmpOpEq, Register: regTmp, Data: []byte{n}}}
}

// within compares an address of the IP header with a prefix.
func within(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	p = p.Masked()
	addr := p.Addr().As4()
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: regTmp, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: regTmp, DestRegister: regTmp, Len: 4, Mask: mask, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: op, Register: regTmp, Data: addr[:]},
	}
}

func destination(p netip.Prefix) []expr.Any { return within(16, p, expr.CmpOpEq) }

// toNode matches the node's own addresses, but not 127.0.0.0/8, from which a
// reply would never come back.
func (t *table) toNode() []expr.Any {
	return append(within(16, netip.MustParsePrefix("127.0.0.0/8"), expr.CmpOpNeq),
		&expr.Fib{Register: regTmp, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regTmp, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
}

// sourceIsOutside matches clients that are neither a pod nor this node.
func (t *table) sourceIsOutside() []expr.Any {
	return append(within(12, t.cfg.ClusterCIDR, expr.CmpOpNeq),
		&expr.Fib{Register: regTmp, FlagSADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regTmp, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)})
}

func (t *table) markOp(mask, xor uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: regTmp},
		&expr.Bitwise{SourceRegister: regTmp, DestRegister: regTmp, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: binaryutil.NativeEndian.PutUint32(xor)},
	}
}

func (t *table) setMark() []expr.Any {
	return append(t.markOp(^t.cfg.Mark, t.cfg.Mark), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: regTmp})
}

func (t *table) clearMark() []expr.Any {
	return append(t.markOp(^t.cfg.Mark, 0), &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: regTmp})
}

func (t *table) marked() []expr.Any {
	return append(t.markOp(t.cfg.Mark, 0), &expr.Cmp{Op: expr.CmpOpNeq, Register: regTmp, Data: []byte{0, 0, 0, 0}})
}
