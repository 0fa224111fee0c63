package component

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/version"
)

// BuildInfo tells the version of Kubernetes that this program is, as each of
// its components does.
func BuildInfo() prometheus.Collector {
	v := version.Get()
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kubernetes_build_info", Help: "The version of Kubernetes; always 1.", ConstLabels: prometheus.Labels{
		"major": v.Major, "minor": v.Minor, "git_version": v.GitVersion, "git_commit": v.GitCommit, "git_tree_state": v.GitTreeState, "build_date": v.BuildDate,
		"go_version": v.GoVersion, "compiler": v.Compiler, "platform": v.Platform,
	}})
	info.Set(1)
	return info
}
