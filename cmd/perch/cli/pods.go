package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// previousInstance is the number of the instance before the current one of the
// one pod that is named.
func (w *web) previousInstance(ctx context.Context, ns string, args []string, o logsOptions) (string, error) {
	if len(args) != 1 {
		return "", Usage{errors.New("-p needs one pod; for others give --instance")}
	}
	pod, err := w.api.CoreV1().Pods(ns).Get(ctx, strings.TrimPrefix(strings.TrimPrefix(args[0], "pod/"), "po/"), metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("find pod: %w", err)
	}
	for _, c := range pod.Status.ContainerStatuses {
		if (o.container == "" || c.Name == o.container) && c.RestartCount > 0 {
			return strconv.Itoa(int(c.RestartCount) - 1), nil
		}
	}
	return "", fmt.Errorf("no container of pod %s was started before", pod.Name)
}

// whyNothing tells why there are no lines: nothing exists by that name, or what
// exists has written nothing. Pods of other kinds' names are not looked up.
func (w *web) whyNothing(ctx context.Context, out io.Writer, ns string, args []string, o logsOptions) error {
	for _, arg := range args {
		name := strings.TrimPrefix(strings.TrimPrefix(arg, "pod/"), "po/")
		if strings.Contains(name, "/") || o.all {
			continue
		}
		pod, err := w.api.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			if o.query != "" || o.grep != "" || o.since != "" || o.until != "" || o.container != "" || o.instance != "" {
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

func hasContainer(pod *corev1.Pod, name string) bool {
	named := func(c corev1.Container) bool { return c.Name == name }
	return slices.ContainsFunc(pod.Spec.Containers, named) || slices.ContainsFunc(pod.Spec.InitContainers, named)
}
