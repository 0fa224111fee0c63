// Recorder writes what the shipped rules look at on a running cluster as text,
// for TestADayOfAHealthyClusterIsSilent:
//
//	go run ./alerts/rule/recorder -token "$(perch token)" -ca /var/lib/perch/ca.crt -for 30m >alerts/rule/testdata/healthy.txt
//
// A line is a series and its values; vxn is v and n times more of it, _ nothing.
package main

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"perch/alerts/rule"
)

func main() {
	web := flag.String("web", "https://127.0.0.1:9443", "web door of the cluster")
	token := flag.String("token", "", "bearer token")
	ca := flag.String("ca", "", "file with the CA of the door")
	dir := flag.String("dir", "/var/lib/perch", "data directory of the node, written as /var/lib/perch")
	span := flag.Duration("for", 30*time.Minute, "how much of the newest past")
	step := flag.Duration("step", 30*time.Second, "between two samples")
	flag.Parse()
	if err := record(*web, *token, *ca, *dir, *span, *step); err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
}

func record(web, token, ca, dir string, span, step time.Duration) error {
	text, err := os.ReadFile(ca)
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	selectors, err := rule.Selectors()
	if err != nil {
		return err
	}
	end := time.Now().Truncate(step)
	start := end.Add(-span)
	all := map[string]string{}
	for _, sel := range selectors {
		query, name := sel, ""
		if at := strings.Index(sel, "_bucket"); at >= 0 { // many, and the rules do the same with them
			name = sel[:at] + "_bucket"
			query = "sum by (job, verb, le) (" + sel + ")"
		}
		form := url.Values{"query": {query}, "start": {fmt.Sprint(start.Unix())}, "end": {fmt.Sprint(end.Unix())}, "step": {fmt.Sprint(step.Seconds())}}
		req, err := http.NewRequest(http.MethodGet, web+"/prometheus/api/v1/query_range?"+form.Encode(), nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", sel, err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if err := ask(client, req, name, dir, start, end, step, all); err != nil {
			return fmt.Errorf("ask %s: %w", sel, err)
		}
	}
	out := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(out, "# Recorded on a healthy cluster: one node, a small application.\nstart %d\nstep %s\n", start.Unix(), step)
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintln(out, k, all[k])
	}
	return out.Flush()
}

func ask(client *http.Client, req *http.Request, name, dir string, start, end time.Time, step time.Duration, into map[string]string) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var a struct {
		Status, Error string
		Data          struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return err
	}
	if a.Status != "success" {
		return errors.New(a.Error)
	}
	for _, s := range a.Data.Result {
		at := map[int64]string{}
		for _, v := range s.Values {
			t, _ := v[0].(float64)
			at[int64(t)], _ = v[1].(string)
		}
		var values []string
		for t := start; !t.After(end); t = t.Add(step) {
			v, ok := at[t.Unix()]
			if !ok {
				v = "_"
			} else if f, err := strconv.ParseFloat(v, 64); err == nil {
				switch {
				case f == float64(int64(f)):
					v = strconv.FormatFloat(f, 'f', -1, 64)
				case math.Abs(f) >= 1e6: // a time, or counted in bytes
					v = strconv.FormatFloat(f, 'f', 3, 64)
				default:
					v = strconv.FormatFloat(f, 'g', 7, 64) // as exact as a rate needs
				}
			}
			values = append(values, v)
		}
		for k, v := range s.Metric {
			s.Metric[k] = strings.ReplaceAll(v, dir, "/var/lib/perch")
		}
		own := cmp.Or(name, s.Metric["__name__"])
		delete(s.Metric, "__name__")
		into[own+labels.FromMap(s.Metric).String()] = runs(values)
	}
	return nil
}

// runs writes equal neighbours once.
func runs(values []string) string {
	var out []string
	for i := 0; i < len(values); {
		n := i
		for n+1 < len(values) && values[n+1] == values[i] {
			n++
		}
		if n > i {
			out = append(out, fmt.Sprintf("%sx%d", values[i], n-i))
		} else {
			out = append(out, values[i])
		}
		i = n + 1
	}
	return strings.Join(out, " ")
}
