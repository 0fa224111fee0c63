package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed all:dist
var dist embed.FS

// nonceMark is what index.html holds where the page's style nonce belongs.
const nonceMark = "__NONCE__"

type asset struct {
	raw, gz []byte
	etag    string
	ctype   string
}

// Page answers with the page's files.
type Page struct {
	assets map[string]*asset
	index  *asset
}

// New reads the embedded files and compresses each once.
func New() (*Page, error) {
	p := &Page{assets: map[string]*asset{}}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(raw); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		sum := sha256.Sum256(raw)
		p.assets[strings.TrimPrefix(name, "dist/")] = &asset{raw, z.Bytes(), `"` + hex.EncodeToString(sum[:8]) + `"`, typeOf(name)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	p.index = p.assets["index.html"]
	if p.index == nil {
		return nil, fmt.Errorf("read the page: ui/dist has no index.html: run `make ui`")
	}
	return p, nil
}

func typeOf(name string) string {
	if ext := path.Ext(name); ext == ".woff2" {
		return "font/woff2"
	} else if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	return "application/octet-stream"
}

// ServeHTTP answers /a/* with files and every other path with the page itself,
// which routes in the browser. A missing file is 404, never the page.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	key := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	a := p.assets[key]
	if a == nil {
		if strings.HasPrefix(key, "a/") {
			http.NotFound(w, r)
			return
		}
		a = p.index
	}
	h := w.Header()
	h.Set("Content-Type", a.ctype)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	nonce := make([]byte, 12)
	rand.Read(nonce)
	id := hex.EncodeToString(nonce)
	h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; style-src 'self' 'nonce-"+id+
		"'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'")
	if a == p.index {
		h.Set("Cache-Control", "no-store")
		w.Write(bytes.ReplaceAll(a.raw, []byte(nonceMark), []byte(id)))
		return
	}
	h.Set("ETag", a.etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		w.Write(a.gz)
		return
	}
	w.Write(a.raw)
}
