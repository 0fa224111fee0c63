package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"perch/cmd/perch/trial"
)

const (
	crashes    = 30
	crashPause = time.Second
	crashReady = 10 * time.Second // until routes are read and the pods' numbers known
	crashLimit = 20 * time.Second // then the webhook is lost
	shortCount = 20
)

// inbox takes webhooks and remembers when each pod was first told of.
type inbox struct {
	mu   sync.Mutex
	told map[string]time.Time
}

func (i *inbox) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	at := time.Now()
	var body struct {
		Alerts []struct {
			Status string
			Labels map[string]string
		}
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, a := range body.Alerts {
		if pod := a.Labels["pod"]; a.Status == "firing" && i.told[pod].IsZero() {
			i.told[pod] = at
		}
	}
}

func (i *inbox) at(pod string) time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.told[pod]
}

// crashToWebhook lets containers crash, one after the other, and waits for the
// shipped alert at a webhook. Each pod is a group of its own: of further alerts
// of a group Alertmanager tells each group_interval only.
func crashToWebhook(ctx context.Context, b *bench) (err error) {
	client, err := b.client()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for webhooks: %w", err)
	}
	box := &inbox{told: map[string]time.Time{}}
	srv := &http.Server{Handler: box, ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	route := fmt.Sprintf("route: {receiver: nobody, routes: [{receiver: bench, group_by: [alertname, namespace, pod], matchers: ['alertname=\"PodContainerRestarted\"']}]}\n"+
		"receivers: [{name: nobody}, {name: bench, webhook_configs: [{url: 'http://%s/'}]}]\n", l.Addr())
	waits, err := b.crashAll(ctx, client, box, route)
	err = errors.Join(err, srv.Close())
	if serr := <-served; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	if err != nil {
		return err
	}
	b.table.add("crash: to webhook received", spread(waits), "p99 2 s")
	return nil
}

func (b *bench) crashAll(ctx context.Context, client kubernetes.Interface, box *inbox, route string) (waits []time.Duration, err error) {
	secrets := client.CoreV1().Secrets(metav1.NamespaceSystem)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "perch-alertmanager"}, StringData: map[string]string{"alertmanager.yaml": route}}
	if _, err := secrets.Create(ctx, secret, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
		return nil, errors.New("routes of an interrupted run are there")
	} else if err != nil {
		return nil, fmt.Errorf("write routes: %w", err)
	}
	defer func() {
		err = errors.Join(err, secrets.Delete(ctx, secret.Name, metav1.DeleteOptions{}), removePods(ctx, client))
	}()
	pods, err := startWeb(ctx, client, crashes)
	if err != nil {
		return nil, err
	}
	if err := trial.Pause(ctx, crashReady); err != nil {
		return nil, err
	}
	for name, ip := range pods {
		began := time.Now()
		if resp, err := http.Post("http://"+net.JoinHostPort(ip, "8080")+"/crash", "", http.NoBody); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // it dies while it answers
			resp.Body.Close()
			return nil, fmt.Errorf("pod %s did not crash", name)
		}
		if _, err := within(ctx, crashLimit, 5*time.Millisecond, "the webhook for "+name, func() bool { return !box.at(name).IsZero() }); err != nil {
			return nil, err
		}
		waits = append(waits, box.at(name).Sub(began))
		if err := trial.Pause(ctx, crashPause); err != nil {
			return nil, err
		}
	}
	return waits, nil
}

// startWeb starts pods that crash when asked, and returns their addresses.
func startWeb(ctx context.Context, client kubernetes.Interface, count int) (map[string]string, error) {
	pods := client.CoreV1().Pods("default")
	for i := range count {
		p := pod(fmt.Sprintf("crash-%d", i), "web")
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("create pod: %w", err)
		}
	}
	out := map[string]string{}
	_, err := within(ctx, 2*time.Minute, 200*time.Millisecond, "pods that crash run", func() bool {
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Running"})
		if err != nil {
			return false
		}
		for _, p := range list.Items {
			if p.Status.PodIP == "" {
				continue
			}
			if c, err := net.DialTimeout("tcp", net.JoinHostPort(p.Status.PodIP, "8080"), time.Second); err == nil {
				c.Close()
				out[p.Name] = p.Status.PodIP
			}
		}
		return len(out) == count
	})
	return out, err
}

// shortLives runs containers of 200 ms, each with an exit code of its own, and
// looks for their last numbers.
func shortLives(ctx context.Context, b *bench) error {
	client, err := b.client()
	if err != nil {
		return err
	}
	if err := b.loadBusybox(ctx); err != nil {
		return err
	}
	pods := client.CoreV1().Pods("default")
	for i := range shortCount {
		p := pod(fmt.Sprintf("short-%d", i), "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 0.1; exit %d", i+1))
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = "docker.io/library/busybox:latest", corev1.PullIfNotPresent
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create pod: %w", err)
		}
	}
	if _, err := within(ctx, time.Minute, 200*time.Millisecond, "pods have ended", func() bool {
		list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "status.phase=Failed"})
		return err == nil && len(list.Items) == shortCount
	}); err != nil {
		return err
	}
	if err := removePods(ctx, client); err != nil {
		return err
	}
	if err := trial.Pause(ctx, 10*time.Second); err != nil { // two warm rounds
		return err
	}
	const of = `{namespace="default",pod=~"short-.*",container="c"}[5m]`
	for _, want := range []struct{ what, expr string }{
		{"CPU time above 0", `count(last_over_time(container_cpu_usage_seconds_total` + of + `) > 0)`},
		{"peak of memory above 0", `count(last_over_time(container_memory_max_usage_bytes` + of + `) > 0)`},
		{"exit code, each its own", `count(count_values("code", last_over_time(perch_container_exit_code` + of + `)))`},
	} {
		got, err := b.vector(ctx, want.expr)
		if err != nil {
			return err
		}
		b.table.add("200 ms: containers with their "+want.what, fmt.Sprintf("%.0f of %d", got[""], shortCount), "all")
	}
	return nil
}
