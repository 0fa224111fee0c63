// Package custom answers custom.metrics.k8s.io and external.metrics.k8s.io from
// the metrics store, for autoscalers and `kubectl get --raw`.
//
// A metric is what an object of kind MetricQuery (perch.dev/v1alpha1) of that
// name and namespace says in PromQL. Without one the name is taken as the name
// of a series, and NAME_per_second as the rate of the counter NAME_total over
// one minute; nothing has to be configured for either. A query is asked with the
// rights of its namespace: it sees the series of that one only, in kube-system all.
//
// The package owns no data and authorizes nobody: the API server does, before.
// Its answers are built from Source, whose functions are its collaborators.
//
// Start reading at Source.Values in values.go; the PromQL is expression.go, the
// HTTP shapes serve.go.
package custom
