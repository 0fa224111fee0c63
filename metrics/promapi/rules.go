package promapi

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Alert is a firing alert that no rule makes.
type Alert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	State       string            `json:"state"` // set here
	ActiveAt    time.Time         `json:"activeAt"`
	Value       string            `json:"value"` // nobody says one
}

// RuleSource says whose the rules of a file are.
type RuleSource struct {
	Namespace string // they live in this one: who sees it sees them. Empty: only an alert shows them
	Common    bool   // everybody may read them
	Wide      bool   // they read more than their namespace: why they fail may tell of others
}

// visibleRules lists alerts from outside beside those of rules, and shows a caller
// who may not see everything only the alerts of its namespaces, and of the rules
// those that live there, those that everybody may read, and those that have such an
// alert.
func (p Parts) visibleRules(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := AccessOf(r.Context())
		var narrow func(Access, json.RawMessage) (any, error)
		switch r.URL.Path {
		case "/api/v1/alerts":
			var outside []Alert
			if p.Outside != nil {
				outside = p.Outside()
			}
			if !a.All || len(outside) > 0 {
				narrow = func(a Access, data json.RawMessage) (any, error) { return narrowAlerts(a, data, outside) }
			}
		case "/api/v1/rules":
			if !a.All {
				q := r.URL.Query()
				bare, _ := strconv.ParseBool(strings.ToLower(q.Get("exclude_alerts"))) // what is wrong with it, Prometheus tells
				if bare {                                                              // alerts say what the caller sees of a state
					q.Del("exclude_alerts")
					r = r.Clone(r.Context())
					r.URL.RawQuery = q.Encode()
				}
				narrow = func(a Access, data json.RawMessage) (any, error) { return p.narrowGroups(a, data, bare) }
			}
		}
		if narrow == nil {
			next.ServeHTTP(w, r)
			return
		}
		r = r.Clone(r.Context())
		r.Header.Del("Accept-Encoding") // we read the answer
		whole := &answer{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(whole, r)
		text := whole.body.Bytes()
		if whole.code == http.StatusOK {
			var err error
			if text, err = narrowed(a, text, narrow); err != nil {
				panic("BUG: rules: " + err.Error())
			}
		}
		w.Header().Set("Content-Type", whole.header.Get("Content-Type"))
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(whole.code)
		_, _ = w.Write(text) // the client is gone otherwise
	})
}

func narrowed(a Access, text []byte, narrow func(Access, json.RawMessage) (any, error)) ([]byte, error) {
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	less, err := narrow(a, whole["data"])
	if err != nil {
		return nil, err
	}
	if whole["data"], err = json.Marshal(less); err != nil {
		return nil, err
	}
	return json.Marshal(whole)
}

func narrowAlerts(a Access, data json.RawMessage, outside []Alert) (any, error) {
	var have struct {
		Alerts []json.RawMessage `json:"alerts"`
	}
	if err := json.Unmarshal(data, &have); err != nil {
		return nil, err
	}
	var ofRules []map[string]string
	for _, text := range have.Alerts {
		var x Alert
		if err := json.Unmarshal(text, &x); err != nil {
			return nil, err
		}
		ofRules = append(ofRules, x.Labels)
	}
	for _, x := range outside {
		if slices.ContainsFunc(ofRules, func(l map[string]string) bool { return maps.Equal(l, x.Labels) }) {
			continue // a rule makes it too
		}
		x.State = "firing"
		text, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}
		have.Alerts = append(have.Alerts, text)
	}
	var err error
	have.Alerts, _, err = visibleAlerts(a, have.Alerts)
	return have, err
}

// visibleAlerts also tells the worst state among those left.
func visibleAlerts(a Access, all []json.RawMessage) (left []json.RawMessage, state string, _ error) {
	left, state = []json.RawMessage{}, "inactive" // null would be another shape
	for _, text := range all {
		var alert struct {
			Labels map[string]string `json:"labels"`
			State  string            `json:"state"`
		}
		if err := json.Unmarshal(text, &alert); err != nil {
			return nil, "", err
		}
		if !a.Allows(alert.Labels["namespace"]) {
			continue
		}
		left = append(left, text)
		if state != "firing" {
			state = alert.State
		}
	}
	return left, state, nil
}

// narrowGroups takes the alerts away from what is left when bare.
func (p Parts) narrowGroups(a Access, data json.RawMessage, bare bool) (any, error) {
	var have map[string]json.RawMessage
	var groups []map[string]json.RawMessage
	if err := json.Unmarshal(data, &have); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(have["groups"], &groups); err != nil {
		return nil, err
	}
	left := []map[string]json.RawMessage{}
	for _, g := range groups {
		var rules, keep []map[string]json.RawMessage
		var file string
		if err := errors.Join(json.Unmarshal(g["rules"], &rules), json.Unmarshal(g["file"], &file)); err != nil {
			return nil, err
		}
		whose := RuleSource{Wide: true}
		if p.RuleSources != nil {
			whose = p.RuleSources(file)
		}
		open := whose.Common || whose.Namespace != "" && a.Allows(whose.Namespace)
		for _, r := range rules {
			var alerts []json.RawMessage
			if r["alerts"] != nil {
				if err := json.Unmarshal(r["alerts"], &alerts); err != nil {
					return nil, err
				}
			}
			alerts, state, err := visibleAlerts(a, alerts)
			if err != nil {
				return nil, err
			}
			if len(alerts) == 0 && !open {
				continue
			}
			if r["state"] != nil { // a record has none
				if len(alerts) > 0 || string(r["state"]) != `"unknown"` { // as long as nobody evaluated it
					r["state"] = json.RawMessage(strconv.Quote(state))
				}
				if bare {
					alerts = nil
				}
				if r["alerts"], err = json.Marshal(alerts); err != nil {
					return nil, err
				}
			}
			if r["lastError"] != nil && whose.Wide {
				r["lastError"] = json.RawMessage(strconv.Quote("the reason is told to who sees all namespaces"))
			}
			keep = append(keep, r)
		}
		if len(keep) == 0 {
			continue
		}
		var err error
		if g["rules"], err = json.Marshal(keep); err != nil {
			return nil, err
		}
		left = append(left, g)
	}
	var err error
	have["groups"], err = json.Marshal(left)
	return have, err
}
