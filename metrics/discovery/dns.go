package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"perch/metrics/target"
)

// question is a name to be asked of one resolver.
type question struct {
	who  string // for people
	of   *net.Resolver
	name string
}

// one is how long one of several questions may take.
const one = 6 * time.Second

// questions are what a pod of the namespace would ask one after the other: names of
// the cluster first, unless the name is a whole one.
func (l *Loop) questions(namespace, name string) []question {
	const cluster, machine = "the cluster's DNS", "the machine's resolver"
	plain, whole := strings.CutSuffix(name, ".")
	plain = strings.ToLower(plain)
	domain := strings.ToLower(strings.Trim(l.parts.Domain, "."))
	if l.parts.Cluster == nil || domain == "" {
		return []question{{machine, l.parts.Machine, name}}
	}
	if plain == domain || strings.HasSuffix(plain, "."+domain) {
		return []question{{cluster, l.parts.Cluster, plain + "."}}
	}
	var out []question
	if !whole && strings.Count(plain, ".") < 5 { // ndots of pods
		for _, in := range []string{namespace + ".svc." + domain, "svc." + domain, domain} {
			out = append(out, question{cluster, l.parts.Cluster, plain + "." + in + "."})
		}
	}
	return append(out, question{machine, l.parts.Machine, name})
}

// askDNS gives the records of the first question that has any. Where one was not
// answered nothing is known: a later one might find something else than what it
// would have found.
func (l *Loop) askDNS(ctx context.Context, s target.Search) (answer, error) {
	for _, q := range l.questions(s.Namespace, s.Name) {
		groups, err := q.ask(ctx, s)
		if err != nil {
			return answer{}, err
		}
		if len(groups) > 0 {
			return fit(groups, l.cfg.Targets), nil
		}
	}
	return answer{note: fmt.Sprintf("%s has no record of type %s", s.Name, s.Type)}, nil
}

// ask gives no group where there is no such name or record.
func (q question) ask(ctx context.Context, s target.Search) ([]target.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, one)
	defer cancel()
	var out []target.Group
	add := func(host string, port uint16, labels ...string) {
		all := map[string]string{"__meta_dns_name": s.Name}
		for i := 0; i < len(labels); i += 2 {
			all[labels[i]] = labels[i+1]
		}
		out = append(out, target.Group{Targets: []string{net.JoinHostPort(strings.TrimSuffix(host, "."), strconv.Itoa(int(port)))}, Labels: all})
	}
	var err error
	switch s.Type {
	case "A", "AAAA":
		ips, e := q.of.LookupNetIP(ctx, map[string]string{"A": "ip4", "AAAA": "ip6"}[s.Type], q.name)
		for _, ip := range ips {
			add(ip.Unmap().String(), s.Port)
		}
		err = e
	case "SRV":
		_, list, e := q.of.LookupSRV(ctx, "", "", q.name)
		for _, r := range list {
			add(r.Target, r.Port, "__meta_dns_srv_record_target", r.Target, "__meta_dns_srv_record_port", strconv.Itoa(int(r.Port)))
		}
		err = e
	case "MX":
		list, e := q.of.LookupMX(ctx, q.name)
		for _, r := range list {
			add(r.Host, s.Port, "__meta_dns_mx_record_target", r.Host)
		}
		err = e
	case "NS":
		list, e := q.of.LookupNS(ctx, q.name)
		for _, r := range list {
			add(r.Host, s.Port, "__meta_dns_ns_record_target", r.Host)
		}
		err = e
	default:
		return nil, fmt.Errorf("type %q is not asked for", s.Type)
	}
	var failed *net.DNSError
	var unfit *net.AddrError // addresses of the other family only
	switch {
	case err == nil, len(out) > 0: // records that are none are left out
		return out, nil
	case errors.As(err, &failed) && failed.IsNotFound, errors.As(err, &unfit):
		return nil, nil
	case errors.As(err, &failed):
		// It may name another server than the one that was asked.
		return nil, fmt.Errorf("%s does not answer for %s: %s", q.who, q.name, unnamed(failed))
	}
	return nil, fmt.Errorf("%s does not answer for %s", q.who, q.name)
}
