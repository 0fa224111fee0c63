package promapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
)

// visibleRules shows a caller who may not see everything only the alerts of its
// namespaces, and of the rules only those that have such an alert.
func visibleRules(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := AccessOf(r.Context())
		var narrow func(Access, json.RawMessage) (any, error)
		switch r.URL.Path {
		case "/api/v1/alerts":
			narrow = narrowAlerts
		case "/api/v1/rules":
			narrow = narrowGroups
		}
		if a.All || narrow == nil {
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

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(code int)        { a.code = code }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

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

func narrowAlerts(a Access, data json.RawMessage) (any, error) {
	var have struct {
		Alerts []json.RawMessage `json:"alerts"`
	}
	if err := json.Unmarshal(data, &have); err != nil {
		return nil, err
	}
	var err error
	have.Alerts, _, err = visibleAlerts(a, have.Alerts)
	return have, err
}

// visibleAlerts also tells the worst state among those left.
func visibleAlerts(a Access, all []json.RawMessage) (left []json.RawMessage, state string, _ error) {
	left = []json.RawMessage{} // null would be another shape
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

func narrowGroups(a Access, data json.RawMessage) (any, error) {
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
		if err := json.Unmarshal(g["rules"], &rules); err != nil {
			return nil, err
		}
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
			if len(alerts) == 0 {
				continue
			}
			if r["alerts"], err = json.Marshal(alerts); err != nil {
				return nil, err
			}
			r["state"] = json.RawMessage(strconv.Quote(state))
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
