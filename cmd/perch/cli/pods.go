package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// podsBySelector names the pods that exist now and have these labels.
func (w *web) podsBySelector(ctx context.Context, ns string, o logsOptions) ([]string, error) {
	if o.all {
		ns = metav1.NamespaceAll
	}
	pods, err := w.api.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: o.selector})
	if err != nil {
		return nil, fmt.Errorf("list pods by -l %s: %w", o.selector, err)
	}
	if len(pods.Items) == 0 {
		return nil, fmt.Errorf("no pod has the labels %s; lines of pods that are gone are found by deploy/NAME", o.selector)
	}
	var names []string
	for _, p := range pods.Items {
		names = append(names, p.Name)
	}
	return names, nil
}

// cutService names the Service that an argument stands for.
func cutService(arg string) (name string, ok bool) {
	kind, name, ok := strings.Cut(arg, "/")
	switch strings.ToLower(kind) {
	case "svc", "service", "services":
		return name, ok
	}
	return "", false
}

// podsOfService names the pods that a Service chooses now.
func (w *web) podsOfService(ctx context.Context, ns, name string) ([]string, error) {
	svc, err := w.api.CoreV1().Services(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("find service: %w", err)
	}
	if len(svc.Spec.Selector) == 0 {
		return nil, fmt.Errorf("service %s chooses no pods: it has no selector", name)
	}
	return w.podsBySelector(ctx, ns, logsOptions{selector: labels.SelectorFromSet(svc.Spec.Selector).String()})
}

// previousInstance is the number of the instance before the current one of the
// one pod that is named; of one that is gone, before its last. query finds its
// lines.
func (w *web) previousInstance(ctx context.Context, ns string, args []string, o logsOptions, query string) (string, error) {
	if len(args) != 1 {
		return "", Usage{errors.New("-p needs one pod; for others give --instance")}
	}
	name := podName(args[0])
	pod, err := w.api.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return w.lastButOne(ctx, name, query)
	} else if err != nil {
		return "", fmt.Errorf("find pod: %w", err)
	}
	if o.container != "" && !hasContainer(pod, o.container) {
		return "", fmt.Errorf("pod %s has no container %s", name, o.container)
	}
	before := map[int32][]string{}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if (o.container == "" || c.Name == o.container) && c.RestartCount > 0 {
			before[c.RestartCount-1] = append(before[c.RestartCount-1], c.Name)
		}
	}
	switch len(before) {
	case 0:
		return "", fmt.Errorf("no container of pod %s was started before", name)
	case 1:
		for n := range before {
			return strconv.Itoa(int(n)), nil
		}
	}
	all := slices.Concat(slices.Collect(maps.Values(before))...)
	slices.Sort(all)
	return "", Usage{fmt.Errorf("containers %s of pod %s were started again, not equally often: choose one with -c", strings.Join(all, " and "), name)}
}

// lastButOne looks the instances up among the stored lines.
func (w *web) lastButOne(ctx context.Context, pod, query string) (string, error) {
	var got struct {
		Values []struct{ Value string }
	}
	if err := w.json(ctx, "/logs/api/v1/values", url.Values{"query": {query}, "field": {"instance"}, "from": {"0"}, "limit": {"1000"}}, &got); err != nil {
		return "", err
	}
	last := -1
	for _, v := range got.Values {
		if n, err := strconv.Atoi(v.Value); err == nil {
			last = max(last, n)
		}
	}
	if last < 1 {
		return "", fmt.Errorf("pod %s is gone, and no line of two of its instances is stored", pod)
	}
	return strconv.Itoa(last - 1), nil
}

func podName(arg string) string {
	if kind, name, ok := strings.Cut(arg, "/"); ok && strings.HasPrefix(kind, "po") {
		return name
	}
	return arg
}

// whyNothing tells why there are no lines: nothing exists by that name, or what
// exists has written nothing.
func (w *web) whyNothing(ctx context.Context, out io.Writer, ns string, args []string, o logsOptions) error {
	narrowed := o.query != "" || o.grep != "" || o.since != "" || o.sinceTime != "" || o.at != "" || o.until != "" || o.container != "" || o.instance != "" || o.previous
	for _, arg := range args {
		name := podName(arg)
		if o.all || narrowed && strings.Contains(name, "/") {
			continue
		}
		if kind, owner, ok := strings.Cut(name, "/"); ok {
			if err := w.exists(ctx, ns, kind, owner); apierrors.IsNotFound(err) {
				return fmt.Errorf("no %s in namespace %s, and no stored line of pods that it had", name, ns)
			} else if err != nil {
				return fmt.Errorf("find %s: %w", name, err)
			}
			continue
		}
		pod, err := w.api.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			if narrowed {
				continue // it may have lived, and written others
			}
			return fmt.Errorf("no pod %s in namespace %s, and no stored line of one that is gone", name, ns)
		} else if err != nil {
			return fmt.Errorf("find pod: %w", err)
		}
		if o.container != "" && !hasContainer(pod, o.container) {
			return fmt.Errorf("pod %s has no container %s", name, o.container)
		}
	}
	_, err := fmt.Fprintln(out, "note: no lines")
	return err
}

// exists asks for the object that an argument of logs stands for.
func (w *web) exists(ctx context.Context, ns, kind, name string) (err error) {
	apps, batch, o := w.api.AppsV1(), w.api.BatchV1(), metav1.GetOptions{}
	switch kind = strings.ToLower(kind); {
	case strings.HasPrefix(kind, "deploy"):
		_, err = apps.Deployments(ns).Get(ctx, name, o)
	case kind == "rs" || strings.HasPrefix(kind, "replicaset"):
		_, err = apps.ReplicaSets(ns).Get(ctx, name, o)
	case kind == "rc" || strings.HasPrefix(kind, "replicationcontroller"):
		_, err = w.api.CoreV1().ReplicationControllers(ns).Get(ctx, name, o)
	case kind == "ds" || strings.HasPrefix(kind, "daemonset"):
		_, err = apps.DaemonSets(ns).Get(ctx, name, o)
	case kind == "sts" || strings.HasPrefix(kind, "statefulset"):
		_, err = apps.StatefulSets(ns).Get(ctx, name, o)
	case kind == "cj" || strings.HasPrefix(kind, "cronjob"):
		_, err = batch.CronJobs(ns).Get(ctx, name, o)
	case strings.HasPrefix(kind, "job"):
		_, err = batch.Jobs(ns).Get(ctx, name, o)
	}
	return err
}

func hasContainer(pod *corev1.Pod, name string) bool {
	named := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, named) || slices.ContainsFunc(pod.Spec.InitContainers, named) ||
		slices.ContainsFunc(pod.Spec.EphemeralContainers, func(c corev1.EphemeralContainer) bool { return c.Name == name })
}
