package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// masquerade replaces the table that hides pods' addresses from the outside, in
// one transaction. Services, pods and nodes that know the way back see them.
func masquerade(c *nftables.Conn, cfg Config, podCIDR netip.Prefix, direct []netip.Addr) error {
	t := &nftables.Table{Name: tableName(cfg.Cluster), Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	nodes := &nftables.Set{Table: t, Name: "nodes", KeyType: nftables.TypeIPAddr}
	var elements []nftables.SetElement
	for _, a := range direct {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	if err := c.AddSet(nodes, elements); err != nil {
		return fmt.Errorf("write table %s: %w", t.Name, err)
	}
	chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	rule := slices.Concat(ipv4(),
		within(12, podCIDR, expr.CmpOpEq), within(16, cfg.ClusterCIDR, expr.CmpOpNeq), within(16, cfg.ServiceCIDR, expr.CmpOpNeq),
		[]expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Lookup{SourceRegister: 1, SetName: nodes.Name, SetID: nodes.ID, Invert: true},
			&expr.Masq{},
		})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write table %s: %w", t.Name, err)
	}
	return nil
}

// masquerades asks whether the table is there.
func masquerades(c *nftables.Conn, cluster string) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	return slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Table.Name == tableName(cluster) && ch.Name == "postrouting"
	}), nil
}

func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

// within compares an address of the IP header with a prefix.
func within(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	p = p.Masked()
	addr := p.Addr().As4()
	mask := binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits()))
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: op, Register: 1, Data: addr[:]},
	}
}

// chainFact is what openForwarding must know of a chain of somebody else.
type chainFact struct {
	chain *nftables.Chain
	drops bool // by policy or by its last rule
	open  bool // has our rules
}

// forwardChains lists the other programs' chains through which forwarded IPv4
// packets pass.
func forwardChains(c *nftables.Conn, cluster string) ([]chainFact, error) {
	all, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []chainFact
	for _, ch := range all {
		ip := ch.Table.Family == nftables.TableFamilyIPv4 || ch.Table.Family == nftables.TableFamilyINet
		if !ip || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || strings.HasPrefix(ch.Table.Name, "perch-") {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue // gone meanwhile
			}
			return nil, fmt.Errorf("read chain %s %s: %w", ch.Table.Name, ch.Name, err)
		}
		out = append(out, chainFact{ch, drops(ch, rules), len(ours(rules, cluster)) >= 2})
	}
	return out, nil
}

// drops tells whether a packet that matches nothing special is dropped.
func drops(ch *nftables.Chain, rules []*nftables.Rule) bool {
	if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop {
		return true
	}
	if len(rules) == 0 {
		return false
	}
	for _, e := range rules[len(rules)-1].Exprs {
		switch v := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			return true
		case *expr.Verdict:
			return v.Kind == expr.VerdictDrop
		default:
			return false // it has a condition
		}
	}
	return false
}

// ours selects the rules that carry our comment.
func ours(rules []*nftables.Rule, cluster string) []*nftables.Rule {
	var out []*nftables.Rule
	for _, r := range rules {
		if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && comment == tableName(cluster) {
			out = append(out, r)
		}
	}
	return out
}

// openForwarding lets pods' packets pass chains that drop, by two rules at their
// top in the form in which iptables-nft writes them. Docker, ufw and firewalld
// drop what they do not know. It returns the names of the chains it opened now.
func openForwarding(c *nftables.Conn, cluster string, pods netip.Prefix) ([]string, error) {
	facts, err := forwardChains(c, cluster)
	if err != nil {
		return nil, err
	}
	var opened []string
	for _, f := range facts {
		if !f.drops || f.open {
			continue
		}
		for _, offset := range []uint32{12, 16} {
			var exprs []expr.Any
			if f.chain.Table.Family == nftables.TableFamilyINet {
				exprs = ipv4()
			}
			exprs = slices.Concat(exprs, within(offset, pods, expr.CmpOpEq), []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}})
			c.InsertRule(&nftables.Rule{Table: f.chain.Table, Chain: f.chain, Exprs: exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, tableName(cluster))})
		}
		opened = append(opened, f.chain.Table.Name+" "+f.chain.Name)
	}
	if err := c.Flush(); err != nil {
		return nil, fmt.Errorf("open forwarding in %s: %w", strings.Join(opened, ", "), err)
	}
	return opened, nil
}

// closeForwarding removes our rules from the chains of others.
func closeForwarding(c *nftables.Conn, cluster string) error {
	facts, err := forwardChains(c, cluster)
	if err != nil {
		return err
	}
	for _, f := range facts {
		rules, err := c.GetRules(f.chain.Table, f.chain)
		if err != nil {
			return fmt.Errorf("read chain %s %s: %w", f.chain.Table.Name, f.chain.Name, err)
		}
		for _, r := range ours(rules, cluster) {
			if err := c.DelRule(r); err != nil {
				return fmt.Errorf("close forwarding in %s: %w", f.chain.Table.Name, err)
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("close forwarding: %w", err)
	}
	return nil
}

// legacyFirewall tells whether iptables-legacy has a filter table, which cannot
// be read or opened over netlink.
func legacyFirewall() bool {
	text, err := os.ReadFile("/proc/net/ip_tables_names")
	return err == nil && slices.Contains(strings.Fields(string(text)), "filter")
}

func firewallCondition(opened []string, pods netip.Prefix) Condition {
	if legacyFirewall() {
		return Condition{"FirewallOpen", false, "IptablesLegacy", fmt.Sprintf("A filter table of iptables-legacy is loaded, which perch cannot read. "+
			"If pods do not reach each other: iptables-legacy -I FORWARD -s %s -j ACCEPT; iptables-legacy -I FORWARD -d %s -j ACCEPT.", pods, pods)}
	}
	if len(opened) > 0 {
		return Condition{"FirewallOpen", true, "Opened", "Rules for the pods' addresses were put into " + strings.Join(opened, ", ") + "."}
	}
	return Condition{"FirewallOpen", true, "Open", "No firewall drops forwarded packets of pods."}
}
