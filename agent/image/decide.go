package image

import (
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
)

// Reasons a container waits for its image, as Kubernetes names them in
// containerStatuses[].state.waiting.reason.
const (
	ReasonPull    = "ErrImagePull"
	ReasonBackOff = "ImagePullBackOff"
	ReasonNever   = "ErrImageNeverPull"
	ReasonName    = "InvalidImageName"
	ReasonInspect = "ImageInspectError"
)

// Waiting is the error of an image that cannot be used now.
type Waiting struct {
	Reason  string // one of the reasons above
	Message string
	Retry   time.Time // when to ask again; zero: not before the pod changes
	Err     error     // the cause, if the runtime told one
}

func (w *Waiting) Error() string { return w.Reason + ": " + w.Message }
func (w *Waiting) Unwrap() error { return w.Err }

// Normalize gives a reference its registry, folder and tag, as the runtime
// writes it: "nginx" is "docker.io/library/nginx:latest".
func Normalize(ref string) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", &Waiting{Reason: ReasonName, Message: fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", ref, ref, err)}
	}
	return reference.TagNameOnly(named).String(), nil
}

// DefaultPolicy is what an empty pull policy means: Always for the tag latest
// (also when no tag is written), else IfNotPresent.
func DefaultPolicy(ref string) corev1.PullPolicy {
	name, err := Normalize(ref)
	if err == nil && !strings.Contains(name, "@") && strings.HasSuffix(name, ":latest") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

// Attempt is what is remembered of an image's failed pulls.
type Attempt struct {
	Failures int
	Last     time.Time
	Message  string // of the last failure
}

// Back-off of one image.
const (
	firstDelay = 10 * time.Second
	maxDelay   = 5 * time.Minute
)

// Next is when an image may be pulled again after its failures.
func (a Attempt) Next() time.Time {
	if a.Failures == 0 {
		return time.Time{}
	}
	delay := firstDelay
	for range a.Failures - 1 {
		if delay *= 2; delay >= maxDelay {
			delay = maxDelay
			break
		}
	}
	return a.Last.Add(delay)
}

// Decide tells whether an image must be pulled now. present says that it is on
// the node. A pull that must wait, or must not be, is a *Waiting.
func Decide(now time.Time, ref string, policy corev1.PullPolicy, present bool, past Attempt) (pull bool, err error) {
	if policy == "" {
		policy = DefaultPolicy(ref)
	}
	switch {
	case policy == corev1.PullNever && present, policy == corev1.PullIfNotPresent && present:
		return false, nil
	case policy == corev1.PullNever:
		return false, &Waiting{Reason: ReasonNever, Message: fmt.Sprintf("Container image %q is not present with pull policy of Never", ref)}
	case now.Before(past.Next()):
		return false, &Waiting{Reason: ReasonBackOff, Message: fmt.Sprintf("Back-off pulling image %q: %s", ref, past.Message), Retry: past.Next()}
	}
	return true, nil
}
