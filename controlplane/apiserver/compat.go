package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/component-base/compatibility"
	_ "k8s.io/component-base/metrics/prometheus/version" // kubernetes_build_info
	baseversion "k8s.io/component-base/version"
)

// This file gathers what only makes sense in view of existing clients.

// fallbackVersion is reported by a binary that was linked without version
// information, such as a test. kubectl refuses the library's placeholder.
const fallbackVersion = "v1.36.3"

// reportedVersion answers /version with numbers that clients can parse.
type reportedVersion struct {
	compatibility.MutableEffectiveVersion
}

// Info fills in what the linker did not.
func (r reportedVersion) Info() *version.Info {
	info := r.MutableEffectiveVersion.Info()
	if info != nil && unlinked(info.GitVersion) {
		info.GitVersion = fallbackVersion
	}
	return info
}

func unlinked(gitVersion string) bool {
	return gitVersion == "" || gitVersion == "v0.0.0-master+$Format:%H$" || gitVersion == baseversion.DefaultKubeBinaryVersion+".0-master+$Format:%H$"
}

// idleWarning tells the author of an object that it is stored but that nothing
// in perch acts on it, so that silence is not mistaken for success.
func (s strategy) idleWarning(o runtime.Object) []string {
	if svc, ok := o.(*corev1.Service); ok && svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return []string{"spec.type: no part of perch gives a LoadBalancer its external address yet; its node ports work"}
	}
	if s.kind.Acts {
		return nil
	}
	return []string{fmt.Sprintf("%s is stored, but no part of perch acts on it yet", s.kind.Kind)}
}

// DefaultGarbageCollectionPolicy says what happens to the pods of an owner that
// is deleted without saying so: Jobs and ReplicationControllers leave theirs
// alone, as clients of these two old APIs expect. kubectl always says.
func (s strategy) DefaultGarbageCollectionPolicy(context.Context) rest.GarbageCollectionPolicy {
	switch s.kind.Kind {
	case "Job", "ReplicationController":
		return rest.OrphanDependents
	case "Event":
		return rest.Unsupported
	}
	return rest.DeleteDependents
}

// unverified is for pods that serve HTTPS behind the API server's proxy: nobody
// issued certificates that we could check. Users who care use port-forward.
func unverified() *tls.Config { return &tls.Config{InsecureSkipVerify: true} } //nolint:gosec // see above
