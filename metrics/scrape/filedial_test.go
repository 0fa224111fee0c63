package scrape

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"perch/metrics/target"
)

// TestWhatAFileNamesOnThisMachineIsForItsJobs: what listens on loopback trusts who
// comes from there, so that a redirect or a proxy of an object must not.
func TestWhatAFileNamesOnThisMachineIsForItsJobs(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Host+r.URL.Path] = true
		mu.Unlock()
		_, _ = io.WriteString(w, "good 1\n")
	}))
	defer private.Close()
	address := strings.TrimPrefix(private.URL, "http://")
	var redirected int
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		redirected++
		mu.Unlock()
		http.Redirect(w, r, private.URL+"/redirected", http.StatusFound)
	}))
	defer app.Close()
	cfg := Default()
	cfg.File = filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(cfg.File, []byte("scrape_configs:\n- {job_name: private, scrape_interval: 1s, scrape_timeout: 1s, static_configs: [{targets: ['"+address+"']}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	l := runLoop(t, s, cfg, Parts{Jobs: func() ([]target.Job, []target.Dropped) {
		return []target.Job{
			jobOf("redirected", strings.TrimPrefix(app.URL, "http://"), "/", ""),
			jobOf("proxied", "shop.red.svc:80", "/proxied", "proxy_url: "+private.URL+"\n"),
		}, nil
	}}, nil)
	eventually(t, 2*time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		up := false
		for _, row := range l.Here() {
			up = up || row.Pool == "private" && row.Health == "up"
		}
		return up && redirected >= 3
	}, func() string { return fmt.Sprintf("%+v, left out %v", l.Here(), l.Dropped()) })
	mu.Lock()
	defer mu.Unlock()
	delete(seen, address+"/metrics")
	if len(seen) > 0 {
		t.Errorf("objects reached %v", seen)
	}
	if left := fmt.Sprint(l.Dropped()); !strings.Contains(left, "servicemonitor/red/proxied") {
		t.Errorf("left out: %s", left)
	}
}
