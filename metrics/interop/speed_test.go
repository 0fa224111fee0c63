package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"perch/metrics/promapi"
	"perch/metrics/store"
)

// serveEnv makes this test binary a perch that serves the named directory.
const serveEnv = "PERCH_INTEROP_SERVE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve answers queries about a directory until its standard input ends.
func serve(dir string) error {
	cfg := store.Default()
	cfg.Dir = dir
	s, err := store.New(cfg, quiet, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	api, err := promapi.New(promapi.Default(), promapi.Parts{Store: s}, quiet, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	// A caller of two namespaces: the matcher that holds it to them costs, too.
	who := promapi.Access{Namespaces: []string{"shop", "bank"}, Unlabelled: true}
	srv := &http.Server{Addr: os.Getenv("PERCH_INTEROP_LISTEN"), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r.WithContext(promapi.WithAccess(r.Context(), who)))
	})}
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte() // ends with the parent
		_ = srv.Close()
	}()
	_ = srv.ListenAndServe() // ends with Close
	return s.Close(context.Background())
}

// blocks writes six hours of pods' series, 15 s apart, in blocks of two hours
// into each directory.
func blocks(t *testing.T, end time.Time, dirs ...string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	type walk struct {
		labels labels.Labels
		value  float64
	}
	var all []*walk
	for pod := range 200 {
		base := []string{"namespace", []string{"shop", "bank"}[pod%2], "pod", fmt.Sprintf("web-%03d", pod), "container", "web", "node", fmt.Sprintf("n%d", pod%5), "job", "kubelet"}
		add := func(name string, more ...string) {
			all = append(all, &walk{labels.FromStrings(append(append([]string{"__name__", name}, base...), more...)...), 0})
		}
		add("container_cpu_usage_seconds_total")
		add("container_memory_working_set_bytes")
		for _, code := range []string{"200", "404", "500"} {
			add("http_requests_total", "code", code)
		}
		for _, le := range []string{"0.01", "0.05", "0.1", "0.5", "1", "+Inf"} {
			add("http_request_duration_seconds_bucket", "le", le)
		}
	}
	const step = 15_000
	for block := range int64(3) {
		from := end.UnixMilli() - (3-block)*2*3600_000
		w, err := tsdb.NewBlockWriter(quiet, dirs[0], 2*3600_000)
		if err != nil {
			t.Fatal(err)
		}
		for at := from; at < from+2*3600_000; at += step { // in the order of time, or the head refuses
			app := w.Appender(t.Context())
			for _, x := range all {
				x.value += float64(r.IntN(100))
				if _, err := app.Append(0, x.labels, at, x.value); err != nil {
					t.Fatal(err)
				}
			}
			if err := app.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		id, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = w.Close() // written
		path := filepath.Join(dirs[0], id.String())
		for _, d := range dirs[1:] {
			if out, err := exec.Command("cp", "-r", path, d).CombinedOutput(); err != nil {
				t.Fatal(string(out))
			}
		}
	}
}

// The same questions about the same blocks: equal answers, and CPU seconds of
// both servers, alternating in one run.
func TestAnswersAndCostBesideThePinnedPrometheus(t *testing.T) {
	root := t.TempDir()
	ours, theirs := filepath.Join(root, "perch"), filepath.Join(root, "data")
	for _, d := range []string{ours, theirs} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	_ = program(t, "prometheus") // skips before the work
	end := time.Now().Truncate(2 * time.Hour)
	blocks(t, end, ours, theirs)
	them := startOn(t, "prometheus", root, "", "--storage.tsdb.retention.time=30d")
	us := startServe(t, ours)

	begin, until := end.Add(-6*time.Hour), end.Add(-time.Second)
	ranged := func(expr, step string) (string, url.Values) {
		return "/api/v1/query_range", url.Values{"query": {expr}, "start": {fmt.Sprint(begin.Unix())}, "end": {fmt.Sprint(until.Unix())}, "step": {step}}
	}
	instant := func(expr string) (string, url.Values) {
		return "/api/v1/query", url.Values{"query": {expr}, "time": {fmt.Sprint(until.Unix())}}
	}
	type question struct {
		name string
		path string
		form url.Values
	}
	var questions []question
	q := func(name, path string, form url.Values) {
		questions = append(questions, question{name, path, form})
	}
	add := func(name string, f func() (string, url.Values)) {
		path, form := f()
		q(name, path, form)
	}
	add("cpu by namespace, 6 h", func() (string, url.Values) {
		return ranged(`sum by (namespace) (rate(container_cpu_usage_seconds_total[5m]))`, "60")
	})
	add("five largest, 6 h", func() (string, url.Values) { return ranged(`topk(5, container_memory_working_set_bytes)`, "60") })
	add("error ratio, 6 h", func() (string, url.Values) {
		return ranged(`sum by (pod) (rate(http_requests_total{code=~"5.."}[5m])) / sum by (pod) (rate(http_requests_total[5m]))`, "120")
	})
	add("99th percentile, 6 h", func() (string, url.Values) {
		return ranged(`histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))`, "60")
	})
	add("one pod, 6 h", func() (string, url.Values) { return ranged(`rate(http_requests_total{pod="web-007"}[1m])`, "15") })
	add("count of all, now", func() (string, url.Values) { return instant(`count by (__name__) ({job="kubelet"})`) })
	add("maximum over an hour, now", func() (string, url.Values) { return instant(`max_over_time(container_memory_working_set_bytes[1h])`) })
	q("series", "/api/v1/series", url.Values{"match[]": {`http_requests_total`}, "start": {fmt.Sprint(begin.Unix())}, "end": {fmt.Sprint(until.Unix())}})

	const rounds = 12
	var table strings.Builder
	var sumUs, sumThem time.Duration
	fmt.Fprintf(&table, "%-28s %10s %12s %8s\n", "CPU ms a query", "perch", "prometheus", "ratio")
	for _, c := range questions {
		var spent [2]time.Duration
		for round := range rounds + 2 {
			var bodies [2]string
			for i, s := range []server{us, them} {
				before := cpu(t, s.pid)
				code, body := ask(t, s.url, c.path, c.form)
				if code != http.StatusOK {
					t.Fatalf("%s: %s answers %d: %s", c.name, s.url, code, body)
				}
				bodies[i] = body
				if round >= 2 { // the first two warm both up
					spent[i] += cpu(t, s.pid) - before
				}
			}
			if round == 0 && data(t, bodies[0]) != data(t, bodies[1]) {
				t.Errorf("%s: the answers differ\nperch      %.300s\nprometheus %.300s", c.name, bodies[0], bodies[1])
			}
		}
		sumUs, sumThem = sumUs+spent[0], sumThem+spent[1]
		fmt.Fprintf(&table, "%-28s %10.1f %12.1f %8.2f\n", c.name, ms(spent[0])/rounds, ms(spent[1])/rounds, ms(spent[0])/ms(spent[1]))
	}
	fmt.Fprintf(&table, "%-28s %10.1f %12.1f %8.2f\n", "all", ms(sumUs)/rounds, ms(sumThem)/rounds, ms(sumUs)/ms(sumThem))
	t.Log("\n" + table.String())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// data is the answer's data in one form.
func data(t *testing.T, body string) string {
	t.Helper()
	var a struct{ Data any }
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(a.Data)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// startServe runs this binary as perch.
func startServe(t *testing.T, dir string) server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := free(t)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), serveEnv+"="+dir, "PERCH_INTEROP_LISTEN="+address)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s := server{url: "http://" + address, pid: cmd.Process.Pid}
	eventually(t, "perch answers", func() bool {
		resp, err := http.Get(s.url + "/api/v1/status/buildinfo")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return true
	})
	return s
}

// cpu is what a process used, from /proc/PID/schedstat in ns: /proc/PID/stat
// counts in ticks of 10 ms.
func cpu(t *testing.T, pid int) (sum time.Duration) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
