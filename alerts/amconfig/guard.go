package amconfig

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"perch/alerts/route"
)

// Guarded says of host:port whether receivers of namespaces are not connected there,
// as far as that is known before a name is looked up.
type Guarded func(address string) bool

// connected are the paths of what a receiver connects to. Other addresses are only
// shown to people.
var connected = regexp.MustCompile(`(?i)^spec\.receivers\[(\d+)\]\.(?:\w+\[\d+\]\.(?:api_?url|webhook_?url|smarthost)|(?:webhook|pagerduty|incidentio)configs\[\d+\]\.url(?:secret)?|\w+\[\d+\](?:\.\w+)+\.(?:proxyurl|tokenurl))$`)

// names notes an address at path that is not connected.
func (w *writer) names(path string, v any) {
	text, ok := v.(string)
	if !ok || w.guarded == nil {
		return
	}
	at := connected.FindStringSubmatch(path)
	if at == nil {
		return
	}
	address := text
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		address = route.HostPort(u)
	} else if !strings.HasSuffix(path, ".smarthost") || text == "" {
		return // load says what is wrong with it
	}
	if w.guarded(address) {
		i, _ := strconv.Atoi(at[1]) // digits
		w.refused = append(w.refused, fmt.Sprintf("%s: receiver %q: %v", path, w.receiver(i), route.Refusal(address)))
	}
}

// Refused are the addresses of receivers that are not connected, each with its path
// and the receiver's name. What value does not know is left out; the text of a Secret
// is told no further than to its host.
func (o Object) Refused(value func(Ref) (string, error), guarded Guarded) []string {
	if o.broken != nil {
		return nil
	}
	w := &writer{value: func(_ string, r Ref) (string, error) { return value(r) }, guarded: guarded}
	_, _ = o.text(w) // Text says what is wrong with it
	slices.Sort(w.refused)
	return w.refused
}

func refusal(all []string) error {
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return errors.New(strings.Join(all, "; "))
}
