package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	writeTime   = 4 * time.Second // for each number of clients
	writeLimit  = 6000            // objects, for each number of clients
	listObjects = 1000
	listRuns    = 10
)

// writesAndLists measures the API server with clients of its own kind: the
// writes are durable when they are answered.
func writesAndLists(ctx context.Context, b *bench) (err error) {
	client, err := b.client()
	if err != nil {
		return err
	}
	const ns = "bench-api"
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	defer func() {
		began := time.Now()
		derr := removeNamespace(ctx, client, ns)
		b.table.add("api: namespace with all of it deleted", seconds(time.Since(began)), "")
		err = errors.Join(err, derr)
	}()
	for _, clients := range []int{1, 16, 64} {
		if err := writes(ctx, b, ns, clients); err != nil {
			return err
		}
	}
	return lists(ctx, b, client, ns)
}

func removeNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	if err := client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete namespace: %w", err)
	}
	_, err := within(ctx, 3*time.Minute, 50*time.Millisecond, "namespace "+name+" is gone", func() bool {
		_, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		return err != nil
	})
	return err
}

func writes(ctx context.Context, b *bench, ns string, clients int) error {
	before, err := b.usage(ctx)
	if err != nil {
		return err
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	failures := make(chan error, clients)
	began := time.Now()
	for i := range clients {
		client, err := b.client()
		if err != nil {
			return err
		}
		wg.Go(func() {
			for n := 0; time.Since(began) < writeTime && done.Load() < writeLimit; n++ {
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("c%d-%d-%d", clients, i, n)}, Data: map[string]string{"key": "value"}}
				if _, err := client.CoreV1().ConfigMaps(ns).Create(ctx, cm, metav1.CreateOptions{}); err != nil {
					failures <- fmt.Errorf("create ConfigMap %s: %w", cm.Name, err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-failures:
		return err
	default:
	}
	after, err := b.usage(ctx)
	if err != nil {
		return err
	}
	n := float64(done.Load())
	used := after.since(before)
	b.table.add(fmt.Sprintf("api: ConfigMap creates, %d clients", clients),
		fmt.Sprintf("%.0f /s, server %.2f cpu-s/1000", n/took.Seconds(), used["server"].Seconds()/n*1000), "")
	return nil
}

// lists reads pods that no scheduler takes, so that nothing changes meanwhile.
func lists(ctx context.Context, b *bench, client kubernetes.Interface, ns string) error {
	for i := range listObjects {
		p := pod(fmt.Sprintf("p%d", i))
		p.Spec.SchedulerName = "nobody"
		if _, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create pod: %w", err)
		}
	}
	for _, kind := range []string{"application/json", "application/vnd.kubernetes.protobuf"} {
		rc, err := b.config()
		if err != nil {
			return err
		}
		rc.AcceptContentTypes = kind
		typed, err := kubernetes.NewForConfig(rc)
		if err != nil {
			return fmt.Errorf("make client: %w", err)
		}
		before, err := b.usage(ctx)
		if err != nil {
			return err
		}
		var wall []time.Duration
		for range listRuns {
			began := time.Now()
			got, err := typed.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
			if err != nil {
				return fmt.Errorf("list pods: %w", err)
			}
			if len(got.Items) != listObjects {
				return fmt.Errorf("list pods: got %d, want %d", len(got.Items), listObjects)
			}
			wall = append(wall, time.Since(began))
		}
		after, err := b.usage(ctx)
		if err != nil {
			return err
		}
		slices.Sort(wall)
		b.table.add(fmt.Sprintf("api: list of %d pods, %s", listObjects, kind),
			fmt.Sprintf("%s, server %s CPU each", ms(wall[len(wall)/2]), ms(after.since(before)["server"]/listRuns)), "")
	}
	return nil
}
