package event

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	messageLimitBytes = 1024 // the API server's own limit for event notes
	nameLimitBytes    = 253
)

// sameness is what makes two records the same fact told twice.
type sameness struct {
	component, kind, namespace, name, uid, field, eventType, reason, message string
}

func samenessOf(r Record) sameness {
	o := r.Object
	return sameness{r.Component, o.Kind, o.Namespace, o.Name, string(o.UID), o.FieldPath, r.Type, r.Reason, r.Message}
}

// bucket limits how many events one object may cause.
type bucket struct {
	tokens float64
	at     time.Time
}

// take answers whether one more event may be posted at now.
func (b bucket) take(now time.Time, burst int, refill time.Duration) (bucket, bool) {
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else if refill > 0 {
		b.tokens = min(float64(burst), b.tokens+float64(now.Sub(b.at))/float64(refill))
	}
	b.at = now
	if b.tokens < 1 {
		return b, false
	}
	b.tokens--
	return b, true
}

// objectOf builds the Event object of the first record of its sameness. Its name
// ends with number.
func objectOf(now time.Time, r Record, host string, number int64) *corev1.Event {
	namespace := r.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Kubernetes keeps events of cluster-wide objects
	}
	suffix := fmt.Sprintf(".%x", number)
	name := r.Object.Name
	if len(name)+len(suffix) > nameLimitBytes {
		name = name[:nameLimitBytes-len(suffix)]
	}
	stamp := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, Name: strings.ToLower(name) + suffix},
		InvolvedObject:      r.Object,
		Reason:              r.Reason,
		Message:             r.Message,
		Type:                r.Type,
		Source:              corev1.EventSource{Component: r.Component, Host: host},
		FirstTimestamp:      stamp,
		LastTimestamp:       stamp,
		Count:               1,
		ReportingController: r.Component,
		ReportingInstance:   host,
	}
}

func cut(message string) string {
	if len(message) <= messageLimitBytes {
		return message
	}
	message = message[:messageLimitBytes-3]
	for !utf8.ValidString(message) {
		message = message[:len(message)-1]
	}
	return message + "..."
}
