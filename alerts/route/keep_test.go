package route

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const silenceBody = `{"matchers":[{"name":"alertname","value":"%s","isRegex":false,"isEqual":true}],"startsAt":"%s","endsAt":"%s","createdBy":"kim","comment":"planned"}`

func silenceText(name string) string {
	now := time.Now().UTC()
	return fmt.Sprintf(silenceBody, name, now.Format(time.RFC3339), now.Add(time.Hour).Format(time.RFC3339))
}

func ask(h http.Handler, method, path, body string) (int, string) {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// TestMain lets this binary be the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ROUTE_VICTIM"); dir != "" {
		victim(dir)
	}
	os.Exit(m.Run())
}

// victim acknowledges silences on stdout until it is killed.
func victim(dir string) {
	t := &testing.B{}
	r, _ := open(t, dir, os.Getenv("ROUTE_CONFIG"))
	if err := r.Receive(t.Context(), firing("Told")); err != nil {
		panic(err)
	}
	for i := range 10_000 {
		name := fmt.Sprint("S", i)
		if code, text := ask(r.Handler("/am"), "POST", "/am/api/v2/silences", silenceText(name)); code != http.StatusOK {
			panic(text)
		}
		fmt.Println(name)
	}
}

func TestWhatWasAnsweredIsThereAfterKillAndNothingIsToldTwice(t *testing.T) {
	at, hooks := inbox(t)
	conf := "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ROUTE_VICTIM="+dir, "ROUTE_CONFIG="+conf)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "told by the first process", func(h hook) bool { return h.Alerts[0].Labels["alertname"] == "Told" })
	began := time.Now()
	var answered []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		answered = append(answered, lines.Text())
		if time.Since(began) > 2*gather { // the notification log is written by now
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // what was answered while the signal came
		answered = append(answered, lines.Text())
	}
	_ = cmd.Wait() // it was killed
	t.Logf("%d silences were answered", len(answered))

	r, stop := open(t, dir, conf)
	code, text := ask(r.Handler("/am"), "GET", "/am/api/v2/silences", "")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	for _, name := range answered {
		if !strings.Contains(text, `"value":"`+name+`"`) {
			t.Fatalf("silence %s was answered and is gone", name)
		}
	}
	if err := r.Receive(t.Context(), firing("Told"), firing("New")); err != nil {
		t.Fatal(err)
	}
	h := next(t, hooks, "told by the second process", func(hook) bool { return true })
	if len(h.Alerts) != 2 { // one group: it is told again only because of New
		t.Errorf("webhook %+v", h)
	}
	over := firing("Told")
	over.Ends = time.Now()
	if err := r.Receive(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "the end of what the first process told", func(h hook) bool {
		return slices.ContainsFunc(h.Alerts, func(a hookAlert) bool { return a.Status == "resolved" && a.Labels["alertname"] == "Told" })
	})
	stop()
	left, err := filepath.Glob(dir + "/*.part-*")
	if err != nil || len(left) > 0 {
		t.Errorf("leftovers %v %v", left, err)
	}
}

// noted waits until it is on disk that something was told.
func noted(t *testing.T, dir string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(dir, "nflog")); err == nil && len(text) > 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("the notification log was not written")
		}
	}
}

func TestTheEndOfAnAlertThatCameWhileNobodyRanIsTold(t *testing.T) {
	at, hooks := inbox(t)
	conf := "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	dir := t.TempDir()
	r, stop := open(t, dir, conf)
	a := firing("Short")
	a.Ends = time.Now().Add(3 * time.Second)
	if err := r.Receive(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "firing", func(h hook) bool { return h.Status == "firing" })
	noted(t, dir)
	stop()
	<-time.After(time.Until(a.Ends))
	open(t, dir, conf)
	next(t, hooks, "resolved", func(h hook) bool { return h.Status == "resolved" && h.Alerts[0].Labels["alertname"] == "Short" })
}

func TestAnAlertThatHadEndedDoesNotFireAgainAfterAStart(t *testing.T) {
	at, hooks := inbox(t)
	conf := "route: {receiver: shop, group_by: [alertname]}\nreceivers: [{name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	dir := t.TempDir()
	r, stop := open(t, dir, conf)
	a := firing("Short")
	a.Ends = time.Now().Add(time.Second) // nobody tells its end: it is over then
	if err := r.Receive(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "resolved", func(h hook) bool { return h.Status == "resolved" })
	stop()
	r, _ = openFor(t, dir, conf, time.Hour)
	for _, a := range r.Active() {
		if a.Ends.After(time.Now()) {
			t.Errorf("fires again until %s: %v", a.Ends, a.Labels)
		}
	}
	if err := r.Receive(t.Context(), firing("Later")); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "the next alert, and nothing before", func(h hook) bool {
		if h.Status == "firing" && h.Alerts[0].Labels["alertname"] == "Short" {
			t.Error("told as firing again")
		}
		return h.Alerts[0].Labels["alertname"] == "Later"
	})
}

func TestAnAlertThatHadEndedBeforeAKillDoesNotFireAgain(t *testing.T) {
	at, hooks := inbox(t)
	conf := "route: {receiver: shop, group_by: [alertname]}\nreceivers: [{name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	dir, killed := t.TempDir(), t.TempDir()
	r, _ := open(t, dir, conf)
	short, shorter := firing("Short"), firing("Shorter")
	shorter.Ends = time.Now().Add(time.Second)
	short.Ends = shorter.Ends.Add(2 * gather) // both by their time alone: no word comes then
	if err := r.Receive(t.Context(), short, shorter); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Shorter", "Short"} {
		next(t, hooks, "resolved "+name, func(h hook) bool { return h.Status == "resolved" && h.Alerts[0].Labels["alertname"] == name })
	}
	file := filepath.Join(dir, "alerts")
	for limit := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		info, err := os.Stat(file)
		if err == nil && info.ModTime().After(short.Ends) {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("20 s after its end the file of alerts is older than that: %v, %v", info, err)
		}
	}
	// What a kill -9 leaves is what the directory has now.
	if out, err := exec.Command("cp", "-a", dir+"/.", killed).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	after, _ := openFor(t, killed, conf, time.Hour)
	if n := len(after.Active()); n != 2 {
		t.Errorf("%d alerts are known, want 2", n)
	}
	for _, a := range after.Active() {
		if a.Ends.After(time.Now()) {
			t.Errorf("fires again until %s: %v", a.Ends, a.Labels)
		}
	}
}

func TestAnAlertThatFiresOnWhileNobodyRunsIsNotToldToHaveEnded(t *testing.T) {
	at, hooks := inbox(t)
	conf := "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	dir := t.TempDir()
	r, stop := open(t, dir, conf)
	long := firing("Long")
	long.Ends = time.Now().Add(4 * time.Second)
	if err := r.Receive(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "firing", func(h hook) bool { return h.Status == "firing" })
	noted(t, dir)
	stop()
	for len(hooks) > 0 {
		<-hooks
	}
	<-time.After(time.Until(long.Ends))
	r, _ = openFor(t, dir, conf, time.Hour)
	if err := r.Receive(t.Context(), firing("New")); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "what is new", func(h hook) bool {
		for _, a := range h.Alerts {
			if a.Status == "resolved" {
				t.Error("told to have ended:", a.Labels)
			}
		}
		return slices.ContainsFunc(h.Alerts, func(a hookAlert) bool { return a.Labels["alertname"] == "New" })
	})
}

func TestAFullDiskIsSaidAndTheSilenceIsWrittenWhenThereIsRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	r, stop := open(t, dir, Default)
	api := r.Handler("/am")
	if code, text := ask(api, "POST", "/am/api/v2/silences", silenceText("Before")); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	full := filepath.Join(dir, "full")
	files := []*kept{r.sentFile, r.silenceFile, r.activeFile, r.textFile}
	for _, k := range files { // one that is replaced gives room back
		k.mu.Lock()
	}
	if err := os.WriteFile(full, make([]byte, 1<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	for _, k := range files {
		k.mu.Unlock()
	}
	code, text := ask(api, "POST", "/am/api/v2/silences", silenceText("Late"))
	if code != http.StatusInternalServerError || !strings.Contains(text, "no space left") {
		t.Errorf("%d %s", code, text)
	}
	if code, text := ask(api, "GET", "/am/api/v2/silences", ""); code != http.StatusOK || !strings.Contains(text, `"Late"`) {
		t.Errorf("not in force: %d %s", code, text)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(4 * retryWrite); ; <-time.After(50 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "silences"))
		if err == nil && strings.Contains(string(text), "Late") && strings.Contains(string(text), "Before") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("not written again: %v", err)
		}
	}
	stop()
}

func TestAFileThatCannotBeReadIsMovedAside(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"silences", "nflog", "alerts"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("\x20not a snapshot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, dir, Default)
	aside, err := filepath.Glob(dir + "/*.broken-*")
	if err != nil || len(aside) != 3 {
		t.Errorf("aside %v %v", aside, err)
	}
}

// Names are UTF-8, as Alertmanager's are: a configuration may ask for them, and an
// alert that has one is there after a restart, as others are beside one that is broken.
func TestNamesAreUTF8AndSurviveARestart(t *testing.T) {
	at, hooks := inbox(t)
	text := "route: {receiver: none, routes: [{receiver: shop, group_by: [service.name], matchers: ['\"service.name\"=\"straße\"']}]}\nreceivers: [{name: none}, {name: shop, webhook_configs: [{url: " + at + "}]}]\n"
	if err := Check(text); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r, stop := open(t, dir, text)
	a := firing("Odd")
	a.Labels["service.name"], a.Annotations = "straße", map[string]string{"runbook-url": "x"}
	if err := r.Receive(t.Context(), a, firing("Plain")); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "told", func(h hook) bool { return h.Alerts[0].Labels["service.name"] == "straße" })
	stop()
	f, err := os.OpenFile(filepath.Join(dir, "alerts"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"labels":{"":"no name"}}` + "\n"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	r, _ = open(t, dir, "")
	if aside, err := filepath.Glob(dir + "/*.broken-*"); err != nil || len(aside) != 0 || len(r.Active()) != 2 {
		t.Errorf("aside %v (%v), %d alerts", aside, err, len(r.Active()))
	}
}

func TestReceiversAreKnownBeforeTheAPIAnswers(t *testing.T) {
	at, hooks := inbox(t)
	dir := t.TempDir()
	_, stop := open(t, dir, "route: {receiver: shop}\nreceivers: [{name: shop, webhook_configs: [{url: "+at+"}]}]\n")
	stop()
	file := filepath.Join(dir, "config")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the configuration has secrets: %v, %v", info, err)
	}
	r, stop := open(t, dir, "")
	if err := r.Receive(t.Context(), firing("Early")); err != nil {
		t.Fatal(err)
	}
	next(t, hooks, "told by the next process", func(h hook) bool { return h.Alerts[0].Labels["alertname"] == "Early" })
	stop()
	if err := os.WriteFile(file, []byte("route: {"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ = open(t, dir, "")
	if r.Text() != Default {
		t.Errorf("instead of one that cannot be read: %s", r.Text())
	}
}
