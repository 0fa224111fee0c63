package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// podCount is how many pods are started one by one, and at once.
const podCount = 30

func pod(name string, args ...string) *corev1.Pod {
	if len(args) == 0 {
		args = []string{"count", "-n", "1", "-stay"}
	}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench"}}, Spec: corev1.PodSpec{
		TerminationGracePeriodSeconds: new(int64),
		Containers:                    []corev1.Container{{Name: "c", Image: "docker.io/library/perch-demo:1", Args: args}},
	}}
}

// podLatency measures from the create call to the moment at which a watcher
// sees the container running, on one clock. The last pods stay for idleCost.
func podLatency(ctx context.Context, b *bench) error {
	client, err := b.client()
	if err != nil {
		return err
	}
	if _, err := within(ctx, time.Minute, 20*time.Millisecond, "the ServiceAccount default is there", func() bool {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	}); err != nil {
		return err
	}
	for _, burst := range []bool{false, true} {
		name := "one by one"
		if burst {
			name = fmt.Sprintf("%d at once", podCount)
		}
		before, err := b.usage(ctx)
		if err != nil {
			return err
		}
		all, err := cgroupCPU(benchCgroup)
		if err != nil {
			return err
		}
		began := time.Now()
		waits, err := startPods(ctx, client, burst)
		if err != nil {
			return err
		}
		took := time.Since(began)
		after, err := b.usage(ctx)
		if err != nil {
			return err
		}
		allAfter, err := cgroupCPU(benchCgroup)
		if err != nil {
			return err
		}
		used := after.since(before)
		b.table.add("pods: create to running, "+name, spread(waits), "p99 500 ms")
		b.table.add("pods: CPU of everything for one, "+name, ms((allAfter-all)/podCount), "")
		b.table.add("pods: of it the roles, "+name, fmt.Sprintf("%s (%s)", ms(used.total()/podCount), used.each(podCount)), "")
		b.table.add("pods: rate, "+name, fmt.Sprintf("%.1f pods/s", podCount/took.Seconds()), "")
		if burst {
			continue
		}
		began = time.Now()
		if err := removePods(ctx, client); err != nil {
			return err
		}
		b.table.add(fmt.Sprintf("pods: %d deleted at once", podCount), seconds(time.Since(began)), "")
	}
	return nil
}

func removePods(ctx context.Context, client kubernetes.Interface) error {
	pods := client.CoreV1().Pods("default")
	if err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete pods: %w", err)
	}
	_, err := within(ctx, 2*time.Minute, 20*time.Millisecond, "pods are gone", func() bool {
		list, err := pods.List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0
	})
	return err
}

// startPods returns each pod's wait.
func startPods(ctx context.Context, client kubernetes.Interface, burst bool) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	pods := client.CoreV1().Pods("default")
	w, err := pods.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	defer w.Stop()
	began := map[string]time.Time{}
	var waits []time.Duration
	for i := range podCount {
		p := pod(fmt.Sprintf("idle-%d", i))
		began[p.Name] = time.Now()
		if _, err := pods.Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return nil, fmt.Errorf("create pod: %w", err)
		}
		for !burst && len(waits) <= i {
			if err := nextRunning(ctx, w, began, &waits); err != nil {
				return nil, err
			}
		}
	}
	for len(waits) < podCount {
		if err := nextRunning(ctx, w, began, &waits); err != nil {
			return nil, err
		}
	}
	return waits, nil
}

// nextRunning takes one event of the watch. A pod is counted once.
func nextRunning(ctx context.Context, w watch.Interface, began map[string]time.Time, waits *[]time.Duration) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("%d of %d pods run: %w", len(*waits), podCount, ctx.Err())
	case e, ok := <-w.ResultChan():
		p, isPod := e.Object.(*corev1.Pod)
		if !ok || !isPod {
			return fmt.Errorf("watch pods: ended after %d: %v", len(*waits), e.Object)
		}
		if e.Type == watch.Deleted || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Running == nil {
			return nil
		}
		if at, waiting := began[p.Name]; waiting {
			*waits = append(*waits, time.Since(at))
			delete(began, p.Name)
		}
		return nil
	}
}
