package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Logs is how lines come in and go on over Fluent Forward, how long they stay,
// and which requests to the API are written down as lines.
type Logs struct {
	ForwardTLSCert string   `json:"forwardTLSCert,omitempty"` // file; empty: the certificate of this node
	ForwardTLSKey  string   `json:"forwardTLSKey,omitempty"`
	ForwardTLSOnly bool     `json:"forwardTLSOnly,omitempty"` // other machines must use TLS
	ForwardToCA    string   `json:"forwardToCA,omitempty"`    // file; empty: what the system believes
	ForwardToStart string   `json:"forwardToStart,omitempty"` // StartBeginning, else StartNow
	LogRetention   []string `json:"logRetention,omitempty"`   // AGE or NAMESPACE=AGE
	LogBytes       []string `json:"logBytes,omitempty"`       // SIZE or NAMESPACE=SIZE
	Audit          string   `json:"audit,omitempty"`          // AuditOff, AuditAll, else AuditWrites
}

// Where a new receiver of --forward-to begins.
const (
	StartNow       = "now"
	StartBeginning = "beginning"
)

// Which requests to the API are written down.
const (
	AuditOff    = "off"
	AuditWrites = "writes"
	AuditAll    = "all"
)

// What lines stay as long as no flag says otherwise.
const (
	defaultAge   = 7 * 24 * time.Hour
	defaultBytes = 8 << 30
)

// Kept is how much of something is kept. For a namespace 0 means as all, for
// all it means for ever.
type Kept struct {
	Age   time.Duration
	Bytes int64
}

// Retention reads --log-retention and --log-bytes.
func (l Logs) Retention() (all Kept, namespaces map[string]Kept, _ error) {
	all, namespaces = Kept{defaultAge, defaultBytes}, map[string]Kept{}
	var errs []error
	for _, text := range l.LogRetention {
		name, value := cutNamespace(text)
		age, err := ParseAge(value)
		if name == "" && value == "0" {
			age, err = 0, nil
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--log-retention %s: %w", text, err))
		} else if name == "" {
			all.Age = age
		} else {
			namespaces[name] = Kept{age, namespaces[name].Bytes}
		}
	}
	for _, text := range l.LogBytes {
		name, value := cutNamespace(text)
		size, err := ParseSize(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("--log-bytes %s: %w", text, err))
		} else if name == "" {
			all.Bytes = size
		} else {
			namespaces[name] = Kept{namespaces[name].Age, size}
		}
	}
	return all, namespaces, errors.Join(errs...)
}

func cutNamespace(text string) (name, value string) {
	if name, value, ok := strings.Cut(text, "="); ok {
		return name, value
	}
	return "", text
}

// Limits of what may be asked for.
const (
	minAge  = time.Hour
	maxAge  = 10 * 365 * 24 * time.Hour
	minSize = 16 << 20
)

// ParseAge reads how long lines are kept, such as 72h or 14d.
func ParseAge(text string) (time.Duration, error) {
	d, err := model.ParseDuration(text)
	if err != nil || time.Duration(d) < minAge || time.Duration(d) > maxAge {
		return 0, errors.New("write how long lines are kept as 72h or 14d, from 1h to 10y")
	}
	return time.Duration(d), nil
}

// ParseSize reads how many bytes of lines are kept, such as 8Gi.
func ParseSize(text string) (int64, error) {
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Value() < minSize {
		return 0, errors.New("write how many bytes of lines are kept, compressed, as 500Mi or 8Gi, from 16Mi on")
	}
	return q.Value(), nil
}

// Onward is where --forward-to points.
func (c Config) Onward() (address string, secret bool) {
	address, secret = strings.CutPrefix(c.ForwardTo, "tls://")
	return address, secret
}

func (c Config) validateLogs(bad func(format string, a ...any)) {
	if (c.ForwardTLSCert == "") != (c.ForwardTLSKey == "") {
		bad("--forward-tls-cert and --forward-tls-key: give both or none")
	}
	switch c.ForwardToStart {
	case "", StartNow, StartBeginning:
	default:
		bad("--forward-to-start %q: use %s or %s", c.ForwardToStart, StartNow, StartBeginning)
	}
	switch c.Audit {
	case "", AuditOff, AuditWrites, AuditAll:
	default:
		bad("--audit %q: use %s, %s or %s", c.Audit, AuditOff, AuditWrites, AuditAll)
	}
	if _, _, err := c.Retention(); err != nil {
		bad("%w", err)
	}
	if c.ForwardTo == "" {
		return
	}
	address, secret := c.Onward()
	host, port, err := net.SplitHostPort(address)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || host == "" || n < 1 || n > 65535 {
		bad("--forward-to %q: write HOST:PORT or tls://HOST:PORT", c.ForwardTo)
	} else if n == c.ForwardPort && c.isThisNode(host) {
		bad("--forward-to %s is this node's own forward port: lines would go round for ever", c.ForwardTo)
	}
	if c.ForwardToCA != "" && !secret {
		bad("--forward-to-ca is for --forward-to tls://HOST:PORT")
	}
}

// isThisNode knows the names that need no look-up; for others the connection
// is looked at.
func (c Config) isThisNode(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || host == c.NodeName || err == nil && (a.IsLoopback() || a.IsUnspecified() || a.Unmap() == c.AdvertiseAddress)
}
