package ui

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sourceHash is what `make ui` writes to dist/.src; checking it needs no node.
func sourceHash(t *testing.T, root string) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "node_modules" {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			files = append(files, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	h := sha256.New()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := filepath.Rel(root, f)
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte(filepath.ToSlash(rel) + "\x00"))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestTheCommittedBuildMatchesItsSources(t *testing.T) {
	want := sourceHash(t, "web")
	if os.Getenv("UI_WRITE") != "" {
		if err := os.WriteFile("dist/.src", []byte(want+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("dist/.src")
	if err != nil || strings.TrimSpace(string(got)) != want {
		t.Fatal("ui/dist is stale: run `make ui` and commit the result")
	}
}

func TestPathsOfThePageAnswerWithItAndMissingFilesDoNot(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/": "text/html", "/logs": "text/html", "/pods/shop/web-1": "text/html", "/a/app.js": "text/javascript", "/a/index.css": "text/css"} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		csp := w.Header().Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'self'") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", "/a/missing.js", nil))
	if w.Code != 404 {
		t.Errorf("missing file: %d", w.Code)
	}
	w = httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if strings.Contains(w.Body.String(), nonceMark) {
		t.Error("the nonce was not put in")
	}
	r := httptest.NewRequest("GET", "/a/app.js", nil)
	r.Header.Set("If-None-Match", p.assets["a/app.js"].etag)
	w = httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if w.Code != 304 {
		t.Errorf("unchanged file: %d", w.Code)
	}
}
