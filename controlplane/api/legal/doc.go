// Package legal says which objects are allowed: it owns the scheme of external
// types and applies Kubernetes' own defaulting, conversion, validation and
// warnings to them.
//
// It is the only package that imports k8s.io/kubernetes: pkg/apis/*/{v1,
// validation} with what they need, the validation options of pkg/api/{pod,job},
// the warnings of pkg/api/{pod,service,job,node,persistentvolume*}, and
// pkg/capabilities. It never stores or serves anything.
//
// In Rules.Scheme the external Go type is also the internal ("hub") type, so
// handlers, admission and storage all see k8s.io/api types. Two groups have more
// than one version and real conversions: autoscaling (hub v2) and events.k8s.io
// (hub core/v1). Validation happens on Kubernetes' internal types in a second,
// private scheme; objects are deep-copied on the way, because the generated
// converters share memory.
//
// All methods are safe for concurrent use and do not change their arguments,
// Canonicalize excepted.
//
// Start reading at New in scheme.go, then at check in check.go.
package legal
