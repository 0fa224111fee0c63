package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestAConfigurationThatIsMissingOrBrokenCountsAsRefusedAndTheOneBeforeStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yml")
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		r := role{reg: prometheus.NewRegistry(), log: slog.New(slog.NewTextHandler(&said, nil))}
		var inForce []string
		keep := r.keep(nil, watchedText{flag: "alert-config", file: file}, func(text string) error {
			if strings.Contains(text, "broken") {
				return errors.New("line 1: broken")
			}
			inForce = append(inForce, text)
			return nil
		})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = keep(ctx) }()
		for _, step := range []struct {
			what, text string // empty: no file
			refused    string
			inForce    int
		}{
			{"missing at first", "", "1", 0},
			{"comes", "a", "0", 1},
			{"broken", "broken", "1", 1},
			{"as before again", "a", "0", 2},
			{"gone", "", "1", 2},
			{"back", "a", "0", 3},
		} {
			err := os.Remove(file)
			if step.text != "" {
				err = os.WriteFile(file, []byte(step.text), 0o600)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			want := "# HELP perch_config_refused 1 while the newest configuration is missing or broken and the one before is in force.\n# TYPE perch_config_refused gauge\nperch_config_refused{flag=\"alert-config\"} " + step.refused + "\n"
			if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want)); err != nil {
				t.Errorf("%s: %v", step.what, err)
			}
			if len(inForce) != step.inForce {
				t.Errorf("%s: put into force %d times, want %d", step.what, len(inForce), step.inForce)
			}
		}
		stop()
		synctest.Wait()
		if n := strings.Count(said.String(), "was not read"); n != 2 {
			t.Errorf("told %d times that the file is missing, want once each time:\n%s", n, said.String())
		}
	})
}

func TestADecisionWaitsForTheAPIAndAWhileForDefinitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, defined := false, false
		known := complete(func() bool { return own }, func() bool { return defined })
		look := func(after time.Duration, want bool) {
			t.Helper()
			<-time.After(after) // of the bubble
			if known() != want {
				t.Errorf("own objects %v, definitions %v: %v", own, defined, !want)
			}
		}
		look(0, false)
		defined = true
		look(time.Hour, false) // the API is away
		own, defined = true, false
		look(time.Hour, false) // it is back this moment
		look(time.Minute, false)
		defined = true
		look(time.Second, true)
		defined = false
		look(definedPatience, true) // a definition was deleted
	})
}
