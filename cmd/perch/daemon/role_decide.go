package daemon

import (
	"k8s.io/client-go/informers"

	"perch/controlplane/event"
)

// deciders are the parts of the control plane that act on numbers and
// heartbeats: the autoscaler and the watch over nodes.
func (r role) deciders(loop clients, f informers.SharedInformerFactory, tell event.Tell) ([]namedRun, error) {
	return nil, nil
}
