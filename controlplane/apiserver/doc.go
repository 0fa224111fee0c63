// Package apiserver serves the Kubernetes API of a cluster with the generic API
// server library over our etcd member.
//
// It owns the REST surface: storage and strategy of every kind of the table in
// controlplane/api, subresources, kubectl's columns, cluster IPs and node ports,
// the objects a cluster cannot be without (system namespaces and the Service
// default/kubernetes). It never decides who may do what (Collaborators
// do), never acts on objects, and imports no k8s.io/kubernetes (api/legal does).
//
//	s, err := apiserver.New(cfg, apiserver.Collaborators{...}, objects, log, reg)
//	group.Go("apiserver", s.Run)            // stop it before the store closes
//	s.LoopbackConfig(), s.Client(), s.Informers()
//	apiserver.Group{...}                    // metrics.k8s.io and the like
//
// Files: server.go wires, kinds.go says what each kind does beyond the common
// strategy in behaviour.go, install.go makes storage of both, table*.go are the
// columns, pod.go, eviction.go, service.go, namespace.go, scale.go, review.go,
// stream.go and proxy.go the special endpoints, crd.go custom resources, self.go
// our own objects, compat.go quirks, decide.go pure decisions.
//
// Full answers 429: Config.MaxReads and MaxWrites bound requests in flight, the
// library's apiserver_current_inflight_requests shows them. A service range or
// node port range that is full answers 500 with the reason.
//
// Start reading at New in server.go.
package apiserver
