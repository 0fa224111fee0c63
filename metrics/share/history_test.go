package share

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAHistoryThatCannotBeReadBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	sent := filepath.Join(dir, sentPrefix+"a")
	for _, file := range []string{filepath.Join(dir, "stores.json"), sent} { // as a power loss may leave them
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := openHistory(dir, t.TempDir(), NoGap(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if len(h.seen()) > 0 || h.gap() != NoGap() {
		t.Errorf("stores %v, gap %v", h.seen(), h.gap())
	}
	if _, err := os.Stat(sent); !os.IsNotExist(err) {
		t.Error("a position is believed whose epochs are not known:", err)
	}
	if _, err := openHistory(dir, t.TempDir(), NoGap(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error("the next start:", err)
	}
}

func TestAnOutageOfTheServerTakesNoStoreItsPlace(t *testing.T) {
	dir := t.TempDir()
	text, err := json.Marshal(remembered{Gap: NoGap(), Seen: []Seen{{Store{Name: "a", Addr: "10.0.0.2:10250"}, time.Now().Add(-3 * time.Hour)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stores.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := openHistory(dir, t.TempDir(), NoGap(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// The first look is before the ring is joined.
	if want, why := Decide(h.seen(), nil, time.Now(), 75*time.Minute); len(want) != 1 {
		t.Error("the store lost its place:", why)
	}
}
