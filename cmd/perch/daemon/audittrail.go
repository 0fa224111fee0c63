package daemon

import (
	"net/http"

	"perch/cmd/perch/daemon/audit"
	"perch/cmd/perch/daemon/config"
	"perch/controlplane/apiserver"
)

// auditTrail makes lines of requests to the API in the log store of this machine.
func (r role) auditTrail() (apiserver.Audit, error) {
	if r.cfg.Audit == config.AuditOff {
		return apiserver.Audit{}, nil
	}
	q, err := audit.New(audit.Default(r.cfg.NodeName), audit.Over(unixClient(r.cfg.Socket("telemetry")), "http://telemetry"+audit.Path), r.part("audit"), r.reg)
	if err != nil {
		return apiserver.Audit{}, err
	}
	r.group.Go("audit", q.Run) // before the API, so that it ends after it
	return apiserver.Audit{Policy: audit.Policy{All: r.cfg.Audit == config.AuditAll}, Sink: q}, nil
}

// keepAudit takes these lines on the telemetry role's socket.
func (l *lines) keepAudit(own *http.ServeMux) {
	last, _ := l.store.Position(audit.File, 1) // none before the first
	own.Handle("POST "+audit.Path, audit.Receiver(last, l.total.Append))
}
