package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The kinds of errors that callers act on; test with errors.Is.
var (
	// ErrNotFound: the pod, container or image does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken by another pod or container.
	ErrExists = errors.New("exists already")
	// ErrUnavailable: the runtime does not answer now. Nothing is known about
	// whether the call took effect: list, then decide anew.
	ErrUnavailable = errors.New("runtime is not reachable")
	// ErrTimeout: the call or the command took longer than allowed.
	ErrTimeout = errors.New("timed out")
	// ErrState: the container is in a state in which this cannot be done.
	ErrState = errors.New("wrong state")
	// ErrUnauthorized: the registry refuses these credentials, or asks for some.
	ErrUnauthorized = errors.New("registry denied access")
)

// callError is a failed call: what was asked, of which object, and the kind.
type callError struct {
	verb, id string
	kind     error // one of the above, or nil
	cause    error
}

func (e *callError) Error() string {
	msg := e.cause.Error()
	if s, ok := status.FromError(e.cause); ok {
		msg = s.Message()
	}
	if errors.Is(e.kind, ErrUnavailable) {
		msg = ErrUnavailable.Error() + ": " + msg
	}
	if e.id == "" {
		return fmt.Sprintf("%s: %s", e.verb, msg)
	}
	return fmt.Sprintf("%s %s: %s", e.verb, e.id, msg)
}

func (e *callError) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// wrap gives a call's error its kind. It returns nil for nil.
func wrap(verb, id string, err error) error {
	if err == nil {
		return nil
	}
	return &callError{verb: verb, id: id, kind: kindOf(err), cause: err}
}

// kindOf maps gRPC codes, and the messages of runtimes that answer "unknown" to
// everything, to the kinds above.
func kindOf(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	text := status.Convert(err).Message()
	switch code := status.Code(err); {
	case strings.Contains(text, "is reserved for"): // containerd calls it a failed precondition
		return ErrExists
	case code == codes.NotFound:
		return ErrNotFound
	case code == codes.AlreadyExists:
		return ErrExists
	case code == codes.Unavailable:
		return ErrUnavailable
	case code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout
	case code == codes.FailedPrecondition:
		return ErrState
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		return ErrUnauthorized
	case code != codes.Unknown:
		return nil
	case strings.Contains(text, "in CONTAINER_EXITED state"), strings.Contains(text, "in CONTAINER_RUNNING state"),
		strings.Contains(text, "is not running"), strings.Contains(text, "in exited state"):
		return ErrState
	case strings.Contains(text, "authorization failed"), strings.Contains(text, "401 Unauthorized"), strings.Contains(text, "403 Forbidden"):
		return ErrUnauthorized
	case strings.Contains(text, "does not exist"), strings.Contains(text, "not found"):
		return ErrNotFound
	}
	return nil
}
