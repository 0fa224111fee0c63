package quiet

import (
	"os"
	"strings"
	"testing"
	"time"
)

// known wants an answer to each line of testdata/series.txt: rules and dashboards
// that people bring along find what they ask for, under the job they ask for.
func (c cluster) known(t *testing.T) {
	text, err := os.ReadFile("testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	asked, end := 0, time.Now().Add(patience)
	for expr := range strings.Lines(string(text)) {
		if expr = strings.TrimSpace(expr); expr == "" || strings.HasPrefix(expr, "#") {
			continue
		}
		asked++
		for len(c.query(t, expr)) == 0 {
			if time.Now().After(end) {
				t.Errorf("no series: %s", expr)
				break
			}
			<-again.C
		}
	}
	t.Logf("%d selectors have data", asked)
}
