package controller

import "perch/controlplane/controller/reconcile"

// loops lists every controller; a new kind is one line here.
func loops(d deps) []*reconcile.Controller {
	return []*reconcile.Controller{
		newDeployment(d),
		newReplicaSet(d),
		newReplicationController(d),
		newJob(d),
		newEndpoint(d),
		newNodeCIDR(d),
		newNamespace(d),
		newNamespaceDefault(d),
		newGarbage(d),
		newLeftoverPod(d),
		newDisruption(d),
	}
}

// Ownership is one row of the table of who reads and writes what.
type Ownership struct {
	Controller string
	Reads      []string
	Writes     []reconcile.Part
}

// Table tells which controller reads and writes which parts of objects.
func (s *Set) Table() []Ownership {
	var out []Ownership
	for _, loop := range s.loops {
		out = append(out, Ownership{loop.Name, loop.Reads, loop.Writes})
	}
	return out
}
