package replica

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/cluster"
	"perch/logs/query"
)

// TestChild is a process that the next test kills: it is the owner or the
// follower.
func TestChild(t *testing.T) {
	switch os.Getenv("REPLICA_CHILD") {
	case "owner":
		s := openStore(t, os.Getenv("REPLICA_DIR"))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { _ = s.Run(ctx) }()
		cfg := DefaultShip("owner", os.Getenv("REPLICA_DIR"))
		cfg.Every, cfg.Idle = 20*time.Millisecond, 20*time.Millisecond
		m := Member{Node: "follower", URL: os.Getenv("REPLICA_URL")}
		sh, err := NewShipper(cfg, s.Files, func() []Member { return []Member{m} }, http.DefaultClient, quiet(), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = sh.Run(ctx) }()
		first, err := strconv.Atoi(os.Getenv("REPLICA_FIRST"))
		if err != nil {
			t.Fatal(err)
		}
		for n := first; ; n += 7 { // until killed
			write(t, s, n, 7)
			fmt.Printf("have %d %d\n", n+7, time.Now().UnixNano())
		}
	case "follower":
		cfg := DefaultKeep(os.Getenv("REPLICA_DIR"), filepath.Join(os.Getenv("REPLICA_DIR")+"-scratch"))
		cfg.FreeBytes = 0
		k := openKeeper(t, cfg)
		t.Fatal(http.ListenAndServe(os.Getenv("REPLICA_ADDR"), k.Ships()))
	default:
		t.Skip("runs in a child process only")
	}
}

func child(t *testing.T, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

// Owner and follower are killed at any moment; what the owner acknowledged
// before the time of the copy is in the copy, once.
func TestKillLosesNothingOlderThanTheCopy(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for seconds")
	}
	owner, keep := t.TempDir(), filepath.Join(t.TempDir(), "copies")
	free := httptest.NewServer(nil)
	addr := free.Listener.Addr().String()
	free.Close()
	first := 0
	for round := range 6 {
		follower, _ := child(t, "REPLICA_CHILD=follower", "REPLICA_DIR="+keep, "REPLICA_ADDR="+addr)
		writer, out := child(t, "REPLICA_CHILD=owner", "REPLICA_DIR="+owner, "REPLICA_URL=http://"+addr, "REPLICA_FIRST="+strconv.Itoa(first))
		type acked struct {
			n  int
			at time.Time
		}
		var have []acked
		lines := make(chan string)
		go func() {
			defer close(lines)
			for out.Scan() {
				lines <- out.Text()
			}
		}()
		// The follower is killed once it has something, the owner once it has more.
		asked := time.NewTicker(20 * time.Millisecond)
		restarted, killed := time.Time{}, false
		hard := time.After(time.Minute)
		for open := true; open; {
			select {
			case l, ok := <-lines:
				var n int
				var at int64
				if open = ok; !ok {
					break
				}
				if _, err := fmt.Sscanf(l, "have %d %d", &n, &at); err == nil {
					have = append(have, acked{n, time.Unix(0, at)})
				}
			case <-asked.C:
				at := askAt(t, addr, owner)
				switch {
				case killed || at.IsZero() || rand.IntN(4) > 0:
				case round%3 < 2 && restarted.IsZero():
					_ = follower.Process.Kill()
					_ = follower.Wait()
					follower, _ = child(t, "REPLICA_CHILD=follower", "REPLICA_DIR="+keep, "REPLICA_ADDR="+addr)
					restarted = time.Now()
				case len(have) > 0 && at.After(restarted) && at.After(have[0].at):
					killed = true
					_ = writer.Process.Kill()
				}
			case <-hard:
				t.Fatalf("round %d: the copy did not grow for a minute, %d acknowledged", round, len(have))
			}
		}
		asked.Stop()
		_ = writer.Wait()
		_ = follower.Process.Kill()
		_ = follower.Wait()
		if len(have) == 0 {
			t.Fatal("the owner wrote nothing")
		}
		cfg := DefaultKeep(keep, filepath.Join(t.TempDir(), "scratch"))
		f := &follower2{openKeeper(t, cfg)}
		all := f.k.Copies()
		if len(all) != 1 {
			t.Fatalf("round %d: copies are %+v", round, all)
		}
		var must int
		for _, a := range have {
			if a.at.Before(all[0].At) {
				must = a.n
			}
		}
		texts := f.read(t)
		numbers := map[int]bool{}
		for _, text := range texts {
			n, err := strconv.Atoi(strings.Fields(text)[1])
			if err != nil || numbers[n] {
				t.Fatalf("line %q, twice: %v (%v)", text, numbers[n], err)
			}
			numbers[n] = true
		}
		for n := range must {
			if !numbers[n] {
				t.Fatalf("round %d: line %d of %d is not in the copy as of %s", round, n, must, all[0].At)
			}
		}
		last := have[len(have)-1]
		t.Logf("round %d: %d lines acknowledged, %d in the copy, which is %s older", round, last.n, len(texts), last.at.Sub(all[0].At))
		// The owner comes back with all its lines; it goes on where they end.
		s := openStore(t, owner)
		own := read(t, query.New(s, quiet()))
		for id, text := range texts {
			if own[id] != text {
				t.Fatalf("round %d: line %s is %q in the copy, %q in the store", round, id, text, own[id])
			}
		}
		first = len(own)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// askAt asks the follower up to when its copy of the store in dir is; zero when
// there is none or no answer.
func askAt(t *testing.T, addr, dir string) time.Time {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(dir, "id"))
	if err != nil {
		return time.Time{} // not yet
	}
	resp, err := http.Get("http://" + addr + Prefix + "owner/" + strings.TrimSpace(string(id)))
	if err != nil {
		return time.Time{} // it is being started
	}
	defer resp.Body.Close()
	var s State
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return time.Time{} // it has nothing, or was killed meanwhile
	}
	return s.At
}

// follower2 reads a copy in this process.
type follower2 struct{ k *Keeper }

func (f *follower2) read(t *testing.T) map[string]string {
	t.Helper()
	door := httptest.NewServer(f.k.Reads())
	defer door.Close()
	defer f.k.closeAll()
	c := f.k.Copies()[0]
	return read(t, cluster.NewRemote(cluster.Peer{Node: "owner", URL: door.URL + ReadPrefix + c.Owner + "/" + c.ID, Client: http.DefaultClient}))
}
