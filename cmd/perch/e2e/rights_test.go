package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// caller asks the web door.
type caller struct {
	web, token string
	client     *http.Client
}

func (c caller) ask(t *testing.T, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.web+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// pushes are one line in the words of each door; NAMESPACE is what the sender
// claims, LINE what it says.
var pushes = map[string]struct{ path, kind, body string }{
	"Loki":          {"/loki/api/v1/push", "application/json", `{"streams":[{"stream":{"namespace":"NAMESPACE","pod":"p"},"values":[["0","LINE"]]}]}`},
	"Elasticsearch": {"/elastic/NAMESPACE/_bulk", "application/x-ndjson", `{"create":{}}` + "\n" + `{"message":"LINE","namespace":"NAMESPACE","kubernetes":{"namespace_name":"NAMESPACE"}}` + "\n"},
	"_bulk":         {"/_bulk", "application/x-ndjson", `{"create":{"_index":"NAMESPACE"}}` + "\n" + `{"message":"LINE","namespace":"NAMESPACE"}` + "\n"},
	"OTLP":          {"/v1/logs", "application/json", `{"resourceLogs":[{"resource":{"attributes":[{"key":"k8s.namespace.name","value":{"stringValue":"NAMESPACE"}},{"key":"namespace","value":{"stringValue":"NAMESPACE"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"LINE"}}]}]}]}`},
	"lines":         {"/logs/api/v1/push", "application/json", `{"msg":"LINE","namespace":"NAMESPACE"}`},
}

// rights are those of callers limited to a namespace, at each door that takes
// lines and each way to ask for them.
func (c cluster) rights(t *testing.T) {
	const own, other = "rights-own", "rights-other"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // the door's certificate is not what is tested
	defer client.CloseIdleConnections()
	web := strings.TrimSpace(c.run(t, c.perch, "get", "configmap", "-n", "kube-public", "perch-info", "-o", "jsonpath={.data.web}"))
	as := func(token string) caller { return caller{web, strings.TrimSpace(token), client} }
	for _, ns := range []string{own, other} {
		c.run(t, c.perch, "create", "namespace", ns)
		defer c.run(t, c.perch, "delete", "namespace", ns, "--wait=false")
	}
	account := func(name, role string) caller {
		c.run(t, c.perch, "create", "serviceaccount", name, "-n", own)
		if role != "" {
			c.run(t, c.perch, "create", "rolebinding", name, "-n", own, "--clusterrole="+role, "--serviceaccount="+own+":"+name)
		}
		return as(c.run(t, c.perch, "create", "token", name, "-n", own))
	}
	admin, reader, writer := as(c.run(t, c.perch, "token", "--data-dir", c.dir)), account("reader", "view"), account("writer", "")

	for door, p := range pushes {
		// push says who claims what, and what becomes of it: the namespace, or why not.
		push := func(who caller, line, claim, want string, headers ...string) {
			t.Helper()
			fill := strings.NewReplacer("NAMESPACE", claim, "LINE", line, `"0"`, fmt.Sprintf(`"%d"`, time.Now().UnixNano()))
			code, text := who.ask(t, http.MethodPost, fill.Replace(p.path), fill.Replace(p.body), append(headers, "Content-Type", p.kind)...)
			if no, why, _ := strings.Cut(want, " "); no == "401" || no == "403" {
				if fmt.Sprint(code) != no || !strings.Contains(text, why) {
					t.Errorf("%s: %q is answered %d %s, want %s", door, line, code, text, want)
				}
				return
			}
			if code/100 != 2 || strings.Contains(text, `"errors":true`) {
				t.Errorf("%s: %q is answered %d %s", door, line, code, text)
				return
			}
			if _, have := admin.ask(t, http.MethodGet, "/logs/api/v1/query?query="+url.QueryEscape(`"`+line+`"`), ""); !strings.Contains(have, `"namespace":"`+want+`",`) {
				t.Errorf("%s: %q is not of %s: %s", door, line, want, have)
			}
		}
		name := strings.ToLower(strings.Trim(door, "_"))
		push(writer, "rightly "+name+" own", other, own) // what it says of itself is a field
		push(writer, "rightly "+name+" stolen", own, "403 may not create pods/log in namespace "+other, "Perch-Namespace", other)
		push(reader, "rightly "+name+" reader", other, own)
		push(admin, "rightly "+name+" given", own, other, "Perch-Namespace", other)
		push(admin, "rightly "+name+" nowhere", own, "403 there is no namespace rights-none", "Perch-Namespace", "rights-none")
		push(as("nonsense"), "x", own, "401 the token is unknown")
	}

	_, first := admin.ask(t, http.MethodGet, "/logs/api/v1/query?query=given&limit=1", "")
	var line struct{ ID, Namespace string }
	if err := json.NewDecoder(strings.NewReader(first)).Decode(&line); err != nil || line.Namespace != other {
		t.Fatalf("%s: %v", first, err)
	}
	for _, path := range []string{"query?query=rightly", "histogram?query=rightly&field=namespace", "fields?query=rightly", "values?query=rightly&field=namespace", "patterns?query=rightly",
		"stats?query=rightly&by=namespace", "values?query=rightly&field=index", "query?query=" + url.QueryEscape("namespace:"+other)} {
		// what a namespace's lines say is in the answer only for who may read them.
		_, all := admin.ask(t, http.MethodGet, "/logs/api/v1/"+path, "")
		code, text := reader.ask(t, http.MethodGet, "/logs/api/v1/"+path, "")
		before, after, named := strings.Cut(text, `"hidden":[`)
		if code != http.StatusOK || !named || !strings.Contains(after, `"`+other+`"`) || strings.Contains(after, `"`+own+`"`) {
			t.Errorf("%s does not name what it leaves out: %d %s", path, code, text)
		}
		if strings.Contains(before, "given") || all == text {
			t.Errorf("%s shows lines of %s: %s", path, other, text)
		}
		code, text = writer.ask(t, http.MethodGet, "/logs/api/v1/"+path, "")
		if before, after, _ := strings.Cut(text, `"hidden":[`); code != http.StatusOK || strings.Contains(before, "rightly") || !strings.Contains(after, `"rights-o`) {
			t.Errorf("%s shows lines to who may read none: %d %s", path, code, text)
		}
	}
	if _, text := reader.ask(t, http.MethodGet, "/logs/api/v1/context?id="+line.ID, ""); strings.Contains(text, "rightly") {
		t.Errorf("context of a line of another namespace: %s", text)
	}
	if _, text := admin.ask(t, http.MethodGet, "/logs/api/v1/context?id="+line.ID, ""); !strings.Contains(text, "given") {
		t.Errorf("context: %s", text)
	}
	c.followed(t, reader, admin, own, other)

	for _, ns := range []string{own, other} {
		c.run(t, c.perch, "create", "configmap", "board", "-n", ns, "--from-literal=board.json={}")
		c.run(t, c.perch, "label", "configmap", "board", "-n", ns, "grafana_dashboard=1")
	}
	for who, want := range map[*caller][]bool{&admin: {true, true, true}, &reader: {true, true, false}, &writer: {true, false, false}} {
		_, text := who.ask(t, http.MethodGet, "/ui/api/v1/dashboards", "")
		for i, board := range []string{`"kube-system","name":"perch-dashboard-nodes"`, `"` + own + `","name":"board"`, `"` + other + `","name":"board"`} {
			if strings.Contains(text, `"namespace":`+board) != want[i] {
				t.Errorf("dashboard %s: want %v in %s", board, want[i], text)
			}
		}
	}

	// The same limits hold for counts of lines.
	want := `"namespace":"` + own + `"`
	within(t, time.Minute, "lines are counted", func() bool {
		_, text := reader.ask(t, http.MethodGet, "/prometheus/api/v1/query?query=perch_log_lines_total", "")
		if strings.Contains(text, other) {
			t.Fatalf("counts of another namespace: %s", text)
		}
		return strings.Contains(text, want)
	})
}

// followed wants that a live tail has the lines of one namespace only.
func (c cluster) followed(t *testing.T, reader, admin caller, own, other string) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, reader.web+"/logs/api/v1/tail?query=tailed", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+reader.token)
	resp, err := reader.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Scan() // it is open
	for _, ns := range []string{other, own} {
		if code, text := admin.ask(t, http.MethodPost, "/logs/api/v1/push", "tailed in "+ns, "Perch-Namespace", ns); code != http.StatusOK {
			t.Fatal(code, text)
		}
	}
	event := "" // a line has none
	for in.Scan() {
		if name, ok := strings.CutPrefix(in.Text(), "event: "); ok || in.Text() == "" {
			event = name
		}
		if data, ok := strings.CutPrefix(in.Text(), "data: "); ok && event == "" {
			if !strings.Contains(data, "tailed in "+own) {
				t.Errorf("followed %s", data)
			}
			return
		}
	}
	t.Errorf("nothing was followed: %v", in.Err())
}
