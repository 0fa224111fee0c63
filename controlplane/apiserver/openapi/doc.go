// Package openapi holds the generated OpenAPI definitions of every type the
// API server serves. It owns nothing else; regenerate it after a change of the
// Kubernetes module version or when a served Go type is added.
//
// Start reading at GetOpenAPIDefinitions, its only entry point.
package openapi

// openapi-gen must not enter go.mod as a tool: it would move kube-openapi.
// Build it with a copy of go.mod, then run go generate with it on the PATH.
//
//go:generate openapi-gen --output-dir . --output-pkg perch/controlplane/apiserver/openapi --output-file openapi_gen.go --go-header-file /dev/null k8s.io/api/core/v1 k8s.io/api/apps/v1 k8s.io/api/batch/v1 k8s.io/api/autoscaling/v1 k8s.io/api/autoscaling/v2 k8s.io/api/networking/v1 k8s.io/api/rbac/v1 k8s.io/api/storage/v1 k8s.io/api/coordination/v1 k8s.io/api/discovery/v1 k8s.io/api/policy/v1 k8s.io/api/scheduling/v1 k8s.io/api/node/v1 k8s.io/api/admissionregistration/v1 k8s.io/api/certificates/v1 k8s.io/api/events/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1 k8s.io/metrics/pkg/apis/metrics/v1beta1 k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/version k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/api/resource
