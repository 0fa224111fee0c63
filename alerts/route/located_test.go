package route

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPathsOfAConfigurationAreRelativeToIt(t *testing.T) {
	dir := t.TempDir()
	for about, c := range map[string]struct{ text, dir, want, bad string }{
		"none":            {"route: {receiver: a}\n", "", "route: {receiver: a}\n", ""},
		"whole":           {"x: [{api_url_file: /etc/url}] # mine\n", "", "x: [{api_url_file: /etc/url}] # mine\n", ""},
		"relative":        {"x: [{api_url_file: url}]\n", "/etc/perch", "x: [{api_url_file: /etc/perch/url}]\n", ""},
		"of a template":   {"templates: ['t/*.tmpl']\n", dir, "templates: ['" + dir + "/t/*.tmpl']\n# templates: 00000000\n", ""},
		"without a place": {"route: {}\ntemplates: ['*.tmpl']\n", "", "", "line 2: *.tmpl is a relative path"},
		"no YAML":         {"{", "", "{", ""},
	} {
		got, err := Located(c.text, c.dir)
		if (err != nil) != (c.bad != "") || err != nil && !strings.Contains(err.Error(), c.bad) || got != c.want {
			t.Errorf("%s: %q %v, want %q %s", about, got, err, c.want, c.bad)
		}
	}
	conf := "templates: ['*.tmpl']\n"
	before, err := Located(conf, dir)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "a.tmpl"), []byte("a"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if after, err := Located(conf, dir); err != nil || after == before {
		t.Errorf("a template that came is not seen: %q %v", after, err)
	}
}

func TestATemplateBesideTheConfigurationIsRendered(t *testing.T) {
	said := make(chan string, 10)
	chat := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		said <- string(b)
		_, _ = io.WriteString(w, "ok")
	}))
	defer chat.Close()
	dir := t.TempDir()
	for file, text := range map[string]string{"shop.tmpl": `{{ define "shop" }}the shop has {{ .CommonLabels.alertname }}{{ end }}`, "url": chat.URL} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := Located(`
route: {receiver: chat}
templates: ['*.tmpl']
receivers: [{name: chat, slack_configs: [{api_url_file: url, channel: shop, text: '{{ template "shop" . }}'}]}]
`, dir)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := open(t, t.TempDir(), conf)
	if err := r.Receive(t.Context(), firing("Fire")); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-said:
		if !strings.Contains(text, "the shop has Fire") {
			t.Errorf("sent %s", text)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was sent")
	}
}
