package audit

import (
	"context"

	"k8s.io/apiserver/pkg/admission"
)

// DryRun is the name of the admission plugin that marks rehearsals: of a deletion
// only its body says that it is one.
const DryRun = "AuditDryRun"

const dryRunMark = "audit.perch.dev/dry-run"

type dryRun struct{ *admission.Handler }

// NewDryRun returns the plugin.
func NewDryRun() admission.ValidationInterface {
	return dryRun{admission.NewHandler(admission.Create, admission.Update, admission.Delete, admission.Connect)}
}

// Validate implements admission.ValidationInterface; it refuses nothing.
func (dryRun) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !a.IsDryRun() {
		return nil
	}
	return a.AddAnnotation(dryRunMark, "true")
}
