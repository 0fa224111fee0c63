package sign

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"perch/controlplane/auth/node"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
)

// Act is what to do with a request next.
type Act int

// The acts, in the order in which a good request meets them.
const (
	Leave   Act = iota // not ours, finished, or waiting for a person
	Deny               // with the reason
	Approve            // after Claim, if there is one
	Sign               // Request is what to sign
	Forget             // old enough to be deleted
)

// Decision is the next act and why.
type Decision struct {
	Act     Act
	Reason  string
	Claim   string      // id of the join token that Approve must claim first
	Node    string      // whose certificate it is, when it is a node's
	Request pki.Request // for Sign
}

// Finished requests are kept for an hour, undecided ones for a day.
const (
	keepDone    = time.Hour
	keepWaiting = 24 * time.Hour
)

// Facts is what a decision needs to know of the cluster.
type Facts struct {
	Node    *corev1.Node      // that of the requesting node, or that a joining machine wants to be; nil if there is none
	Taken   map[string]string // addresses and names that belong to others, and to whom
	Longest time.Duration     // life of a certificate
}

// Decide names the next act for a request.
func Decide(now time.Time, csr *certificatesv1.CertificateSigningRequest, facts Facts) Decision {
	if !ours(csr.Spec.SignerName) {
		return Decision{}
	}
	age := now.Sub(csr.CreationTimestamp.Time)
	switch {
	case is(csr, certificatesv1.CertificateDenied), is(csr, certificatesv1.CertificateFailed), len(csr.Status.Certificate) > 0:
		if age > keepDone {
			return Decision{Act: Forget, Reason: "finished an hour ago"}
		}
		return Decision{}
	case age > keepWaiting:
		return Decision{Act: Forget, Reason: "nobody decided for a day"}
	}
	request, err := parse(csr.Spec.Request)
	if err != nil {
		return Decision{Act: Deny, Reason: err.Error()}
	}
	want, name, err := read(csr, request)
	if err != nil {
		return Decision{Act: Deny, Reason: err.Error()}
	}
	if is(csr, certificatesv1.CertificateApproved) {
		want.Lifetime = lifetime(csr, facts.Longest)
		return Decision{Act: Sign, Reason: "approved", Node: name, Request: want}
	}
	switch csr.Spec.SignerName {
	case certificatesv1.KubeAPIServerClientKubeletSignerName:
		return decideNodeClient(csr, name, facts.Node)
	case certificatesv1.KubeletServingSignerName:
		return decideNodeServing(csr, name, request, facts)
	}
	return Decision{} // a person approves
}

func ours(signer string) bool {
	switch signer {
	case certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName, certificatesv1.KubeAPIServerClientSignerName:
		return true
	}
	return false
}

func is(csr *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType) bool {
	return slices.ContainsFunc(csr.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == kind })
}

func parse(text []byte) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("spec.request is not one PEM block of type CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("spec.request cannot be read: %w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("spec.request is not signed by its own key: %w", err)
	}
	return request, nil
}

// read checks a request against its signer's rules, approved or not: a person's
// approval does not bend them. It answers what would be signed, and for which node.
func read(csr *certificatesv1.CertificateSigningRequest, r *x509.CertificateRequest) (pki.Request, string, error) {
	want := pki.Request{CommonName: r.Subject.CommonName, Organizations: r.Subject.Organization}
	if r.Subject.CommonName == "" {
		return want, "", errors.New("the request has no common name")
	}
	if len(r.EmailAddresses) > 0 || len(r.URIs) > 0 {
		return want, "", errors.New("the request names e-mail addresses or URIs, which no signer here puts into a certificate")
	}
	if csr.Spec.SignerName == certificatesv1.KubeAPIServerClientSignerName {
		want.Client = true
		if slices.Contains(r.Subject.Organization, user.SystemPrivilegedGroup) {
			return want, "", fmt.Errorf("the group %s is not given by request", user.SystemPrivilegedGroup)
		}
		return want, "", usages(csr, certificatesv1.UsageClientAuth)
	}
	name, ok := node.NameOf(&user.DefaultInfo{Name: r.Subject.CommonName, Groups: r.Subject.Organization})
	if !ok || len(r.Subject.Organization) != 1 {
		return want, "", fmt.Errorf("a node's certificate has the common name system:node:NAME and the one organization %s, not %q and %q", node.Group, r.Subject.CommonName, r.Subject.Organization)
	}
	if csr.Spec.SignerName == certificatesv1.KubeletServingSignerName {
		want.Server, want.DNS, want.IPs = true, r.DNSNames, r.IPAddresses
		if len(r.DNSNames)+len(r.IPAddresses) == 0 {
			return want, name, errors.New("a server's certificate needs a name or an address")
		}
		return want, name, usages(csr, certificatesv1.UsageServerAuth)
	}
	want.Client = true
	if len(r.DNSNames)+len(r.IPAddresses) > 0 {
		return want, name, errors.New("a node's client certificate has no names or addresses")
	}
	return want, name, usages(csr, certificatesv1.UsageClientAuth)
}

// usages must contain the signer's own, and may contain the two that say how a
// key is used in TLS.
func usages(csr *certificatesv1.CertificateSigningRequest, must certificatesv1.KeyUsage) error {
	if !slices.Contains(csr.Spec.Usages, must) {
		return fmt.Errorf("spec.usages lacks %q", must)
	}
	for _, u := range csr.Spec.Usages {
		if u != must && u != certificatesv1.UsageDigitalSignature && u != certificatesv1.UsageKeyEncipherment {
			return fmt.Errorf("spec.usages has %q, which %s does not give", u, csr.Spec.SignerName)
		}
	}
	return nil
}

func lifetime(csr *certificatesv1.CertificateSigningRequest, longest time.Duration) time.Duration {
	if csr.Spec.ExpirationSeconds == nil {
		return longest
	}
	return min(longest, max(10*time.Minute, time.Duration(*csr.Spec.ExpirationSeconds)*time.Second))
}

// decideNodeClient lets a node renew and a machine join. A join token adds a
// node: it does not take over one that is alive, whose secrets it would open.
func decideNodeClient(csr *certificatesv1.CertificateSigningRequest, name string, have *corev1.Node) Decision {
	if asker, ok := node.NameOf(&user.DefaultInfo{Name: csr.Spec.Username, Groups: csr.Spec.Groups}); ok {
		if asker == name {
			return Decision{Act: Approve, Reason: fmt.Sprintf("node %s renews its own certificate", name), Node: name}
		}
		return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the certificate of node %s", asker, name)}
	}
	if id, ok := joining(csr); ok {
		if have != nil && have.Name == name && ready(have) {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s exists and is ready: give this machine another --node-name, or stop that node first", name)}
		}
		return Decision{Act: Approve, Reason: fmt.Sprintf("node %s joined with token %s", name, id), Claim: id, Node: name}
	}
	return Decision{} // somebody else: a person approves
}

func joining(csr *certificatesv1.CertificateSigningRequest) (tokenID string, ok bool) {
	id, ok := strings.CutPrefix(csr.Spec.Username, token.BootstrapUserPrefix)
	return id, ok && slices.Contains(csr.Spec.Groups, token.JoinGroup)
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// decideNodeServing asks that a node's names and addresses are its own. A machine
// that is joining has no Node object yet, and asks before its agent runs: it gets
// what belongs to nobody else.
func decideNodeServing(csr *certificatesv1.CertificateSigningRequest, name string, r *x509.CertificateRequest, facts Facts) Decision {
	asker, ok := node.NameOf(&user.DefaultInfo{Name: csr.Spec.Username, Groups: csr.Spec.Groups})
	if !ok {
		return Decision{} // a person approves
	}
	if asker != name {
		return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the certificate of node %s", asker, name)}
	}
	names, addresses := own(name, facts.Node)
	for _, dns := range r.DNSNames {
		if !slices.Contains(names, dns) {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the name %q, which is not its own (%s)", name, dns, strings.Join(names, ", "))}
		}
		if owner := facts.Taken[dns]; owner != "" {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the name %q, which belongs to %s", name, dns, owner)}
		}
	}
	for _, ip := range r.IPAddresses {
		if owner := facts.Taken[ip.String()]; owner != "" {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the address %s, which belongs to %s", name, ip, owner)}
		}
		if ip.IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the address %s, which is nobody's own", name, ip)}
		}
		if len(addresses) > 0 && !slices.ContainsFunc(addresses, ip.Equal) {
			return Decision{Act: Deny, Reason: fmt.Sprintf("node %s asked for the address %s, which is not in its status", name, ip)}
		}
	}
	return Decision{Act: Approve, Reason: fmt.Sprintf("node %s asked for its own names and addresses", name), Node: name}
}

// own are the names and addresses of a node, as far as they are known.
func own(name string, have *corev1.Node) (names []string, addresses []net.IP) {
	names = []string{name}
	if have == nil {
		return names, nil
	}
	for _, a := range have.Status.Addresses {
		if ip := net.ParseIP(a.Address); ip != nil {
			addresses = append(addresses, ip)
		} else if !slices.Contains(names, a.Address) {
			names = append(names, a.Address)
		}
	}
	return names, addresses
}

// Taken are the addresses and names of all nodes but one, and those reserved.
func Taken(name string, nodes []*corev1.Node, reserved map[string]string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, reserved)
	for _, n := range nodes {
		if n.Name == name {
			continue
		}
		out[n.Name] = "node " + n.Name
		for _, a := range n.Status.Addresses {
			out[a.Address] = "node " + n.Name
		}
	}
	return out
}
