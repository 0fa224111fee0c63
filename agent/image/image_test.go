package image

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"perch/agent/runtime"
	"perch/agent/runtime/runtimetest"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	failed := Attempt{Failures: 1, Last: now.Add(-5 * time.Second), Message: "no route"}
	for _, c := range []struct {
		does    string
		ref     string
		policy  corev1.PullPolicy
		present bool
		past    Attempt
		pull    bool
		reason  string
	}{
		{"Always pulls what is there", "app:v1", corev1.PullAlways, true, Attempt{}, true, ""},
		{"IfNotPresent uses what is there", "app:v1", corev1.PullIfNotPresent, true, Attempt{}, false, ""},
		{"IfNotPresent pulls what is not there", "app:v1", corev1.PullIfNotPresent, false, Attempt{}, true, ""},
		{"Never uses what is there", "app:v1", corev1.PullNever, true, Attempt{}, false, ""},
		{"Never refuses what is not there", "app:v1", corev1.PullNever, false, Attempt{}, false, ReasonNever},
		{"no policy and tag latest means Always", "app", "", true, Attempt{}, true, ""},
		{"no policy and a tag means IfNotPresent", "app:v1", "", true, Attempt{}, false, ""},
		{"a failure 5 s ago waits", "app:v1", corev1.PullIfNotPresent, false, failed, false, ReasonBackOff},
		{"a failure 10 s ago is tried again", "app:v1", corev1.PullIfNotPresent, false, Attempt{Failures: 1, Last: now.Add(-10 * time.Second)}, true, ""},
		{"an image that arrived meanwhile ends the back-off", "app:v1", corev1.PullIfNotPresent, true, failed, false, ""},
		{"Always waits too", "app:v1", corev1.PullAlways, true, failed, false, ReasonBackOff},
	} {
		t.Run(c.does, func(t *testing.T) {
			pull, err := Decide(now, c.ref, c.policy, c.present, c.past)
			have := ""
			if w := (*Waiting)(nil); errors.As(err, &w) {
				have = w.Reason
			}
			if pull != c.pull || have != c.reason {
				t.Errorf("have %v, %q; want %v, %q", pull, have, c.pull, c.reason)
			}
		})
	}
}

func TestBackOffDoublesUpToFiveMinutes(t *testing.T) {
	var have []time.Duration
	for n := range 8 {
		a := Attempt{Failures: n + 1}
		have = append(have, a.Next().Sub(a.Last))
	}
	if want := "[10s 20s 40s 1m20s 2m40s 5m0s 5m0s 5m0s]"; fmt.Sprint(have) != want {
		t.Errorf("have %v, want %s", have, want)
	}
}

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"nginx":                     "docker.io/library/nginx:latest",
		"user/app:v1":               "docker.io/user/app:v1",
		"127.0.0.1:5000/app":        "127.0.0.1:5000/app:latest",
		"registry.example/a/b:v1.2": "registry.example/a/b:v1.2",
		"Bad Name":                  "InvalidImageName",
		"app:":                      "InvalidImageName",
		"":                          "InvalidImageName",
	} {
		have, err := Normalize(ref)
		if w := (*Waiting)(nil); errors.As(err, &w) {
			have = w.Reason
		}
		if have != want {
			t.Errorf("%q: have %q, want %q", ref, have, want)
		}
	}
}

func secret(name, content string) corev1.Secret {
	s := corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(content)}}
	s.Name, s.Namespace = name, "ns"
	return s
}

func TestCredentials(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("enc:od:ed"))
	secrets := []corev1.Secret{
		secret("hub", `{"auths":{"https://index.docker.io/v1/":{"username":"hub","password":"p"}}}`),
		secret("wide", `{"auths":{"*.example":{"username":"wide","password":"p"}}}`),
		secret("narrow", `{"auths":{"registry.example/team":{"username":"narrow","password":"p"}}}`),
		secret("port", `{"auths":{"registry.example:5000":{"auth":"`+encoded+`"}}}`),
		secret("broken", `{"auths":{"secret-text`),
		{Type: corev1.SecretTypeOpaque},
	}
	for image, want := range map[string]string{
		"docker.io/library/nginx:latest": "hub",
		"registry.example/team/app:v1":   "narrow wide",
		"registry.example/other/app:v1":  "wide",
		"registry.example:5000/app:v1":   "enc",
		"a.b.example/app:v1":             "",
		"registry.example:5001/app:v1":   "",
		"registry.example.evil/app:v1":   "",
	} {
		found, problems := Credentials(image, secrets)
		var names []string
		for _, f := range found {
			names = append(names, f.Username)
			if f.Username == "enc" && f.Password != "od:ed" {
				t.Errorf("password is %q, want what follows the first colon", f.Password)
			}
		}
		if have := strings.Join(names, " "); have != want {
			t.Errorf("%s: have %q, want %q", image, have, want)
		}
		if len(problems) != 2 || strings.Contains(fmt.Sprint(problems), "secret-text") {
			t.Errorf("have problems %v, want two that do not show the secret", problems)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add("registry.example/app:v1", `{"auths":{"*.example":{"auth":"dXNlcjpwYXNz"}}}`)
	f.Fuzz(func(t *testing.T, image, content string) {
		found, _ := Credentials(image, []corev1.Secret{secret("s", content)})
		for _, c := range found {
			if c == nil {
				t.Error("a login is nil")
			}
		}
	})
}

func newPuller(cfg Config, pull func(context.Context, string, *cri.AuthConfig) error) *Puller {
	store := runtimetest.NewFake(runtimetest.FakeConfig{Pull: pull})
	return New(cfg, store, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

func TestEnsureBacksOffAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down, pulls := true, 0
		p := newPuller(Config{}, func(context.Context, string, *cri.AuthConfig) error {
			pulls++
			if down {
				return runtime.ErrUnauthorized
			}
			return nil
		})
		reason := func() string {
			_, err := p.Ensure(t.Context(), Request{Image: "app:v1"})
			if w := (*Waiting)(nil); errors.As(err, &w) {
				return w.Reason
			}
			return fmt.Sprint(err)
		}
		if have := reason(); have != ReasonPull {
			t.Fatalf("first: have %s", have)
		}
		if have := reason(); have != ReasonBackOff || pulls != 1 {
			t.Fatalf("at once: have %s after %d pulls, want back-off after one", have, pulls)
		}
		time.Sleep(firstDelay) // fake time
		if have := reason(); have != ReasonPull {
			t.Fatalf("after 10 s: have %s", have)
		}
		down = false
		time.Sleep(2 * firstDelay)
		r, err := p.Ensure(t.Context(), Request{Image: "app:v1"})
		if err != nil || !r.Pulled || r.ID == "" || !strings.Contains(r.Ref, "docker.io/library/app@sha256:") {
			t.Fatalf("have %+v, %v; want a pulled image", r, err)
		}
		if r, err = p.Ensure(t.Context(), Request{Image: "app:v1"}); err != nil || r.Pulled {
			t.Errorf("have %+v, %v; want the image that is there", r, err)
		}
	})
}

func TestEnsureLimitsAndSharesPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most, pulls := 0, 0, 0
		p := newPuller(Config{Parallel: 2}, func(context.Context, string, *cri.AuthConfig) error {
			mu.Lock()
			now, pulls = now+1, pulls+1
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return nil
		})
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if _, err := p.Ensure(t.Context(), Request{Image: fmt.Sprintf("app%d:v1", i%5)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most != 2 || pulls != 5 {
			t.Errorf("have %d pulls, %d at a time; want 5 pulls for 5 images, 2 at a time", pulls, most)
		}
	})
}

func TestEnsureTriesEachLogin(t *testing.T) {
	var users []string
	p := newPuller(Config{}, func(_ context.Context, _ string, a *cri.AuthConfig) error {
		users = append(users, a.GetUsername())
		if a.GetUsername() == "good" {
			return nil
		}
		return runtime.ErrUnauthorized
	})
	_, err := p.Ensure(t.Context(), Request{Image: "registry.example/team/app:v1", Secrets: []corev1.Secret{
		secret("a", `{"auths":{"registry.example/team":{"username":"bad","password":"p"}}}`),
		secret("b", `{"auths":{"registry.example":{"username":"good","password":"p"}}}`),
	}})
	if err != nil || fmt.Sprint(users) != "[bad good]" {
		t.Errorf("have %v after logins %v, want the second one to do", err, users)
	}
}
