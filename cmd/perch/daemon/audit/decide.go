package audit

import (
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/apis/audit"
	apiaudit "k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Policy chooses requests; All are also those of perch's own parts and reads.
type Policy struct{ All bool }

// EvaluatePolicyRule implements the library's interface: one line for a request,
// when it is answered, or, when it lasts, when it begins.
func (p Policy) EvaluatePolicyRule(a authorizer.Attributes) apiaudit.RequestAuditConfig {
	if write, _ := p.Decide(a); !write {
		return apiaudit.RequestAuditConfig{Level: audit.LevelNone}
	}
	other := audit.StageResponseStarted
	if lasts(a) {
		other = audit.StageResponseComplete
	}
	return apiaudit.RequestAuditConfig{Level: audit.LevelMetadata, OmitStages: []audit.Stage{audit.StageRequestReceived, other}}
}

// Decide tells whether a request becomes a line, and why.
func (p Policy) Decide(a authorizer.Attributes) (bool, string) {
	who := a.GetUser()
	switch {
	case !a.IsResourceRequest():
		return false, "it is about no object"
	case who == nil:
		return false, "nobody knows who asked"
	case a.GetResource() == "events":
		return false, "events are lines already"
	case p.All:
		return true, "all are"
	case ownPart(who):
		return false, "a part of perch asked"
	case strings.HasSuffix(a.GetResource(), "reviews"):
		return false, "it asks what may be done"
	case enters(a):
		return true, "it reaches into a pod or a node"
	case a.GetResource() == "secrets":
		return true, "it is about a secret"
	case a.IsReadOnly():
		return false, "it reads"
	case a.GetResource() == "leases":
		return false, "it keeps a lease"
	case a.GetSubresource() == "status" && account(who):
		return false, "a program tells the state of its object"
	}
	return true, "it writes"
}

// ownPart are the API server itself, the other roles, and nodes.
func ownPart(u user.Info) bool {
	name := u.GetName()
	return name == user.APIServerUser || strings.HasPrefix(name, "system:perch:") || strings.HasPrefix(name, "system:kube-") ||
		slices.Contains(u.GetGroups(), user.NodesGroup)
}

func account(u user.Info) bool { return strings.HasPrefix(u.GetName(), "system:serviceaccount:") }

// enters is a way into a running pod or to a node; older clients begin it with a
// POST, newer ones with a GET.
func enters(a authorizer.Attributes) bool {
	switch a.GetSubresource() {
	case "exec", "attach", "portforward", "proxy":
		return true
	}
	return false
}

// lasts is what may go on for hours.
func lasts(a authorizer.Attributes) bool {
	return a.GetVerb() == "watch" || enters(a) || a.GetSubresource() == "log"
}
