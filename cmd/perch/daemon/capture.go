package daemon

import (
	"encoding/json"
	"net/http"
	"slices"

	"perch/agent/tail"
	"perch/logs/record"
	logstore "perch/logs/store"
)

// capture follows the output of this node's containers and takes pushed
// records.
func (l *lines) capture(r role, own *http.ServeMux) error {
	follow, err := tail.New(tail.Default(r.cfg.Path("podlogs"), r.cfg.NodeName), filePositions{l.store}, l.store.Append, r.part("tail"), r.reg)
	if err != nil {
		return err
	}
	r.group.Go("tail", follow.Run)
	own.HandleFunc("GET /perch/v1/drained", func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Query().Get("path")
		drained := follow.Drained(path)
		if !drained {
			w.WriteHeader(http.StatusConflict)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"path": path, "drained": drained}) // the asker is gone if this fails
	})
	return nil
}

// filePositions are the store's positions without that of the events, which is
// no file: the tail forgets files that are gone.
type filePositions struct{ *logstore.Store }

// Positions implements tail.Positions.
func (p filePositions) Positions() []record.Position {
	return slices.DeleteFunc(p.Store.Positions(), func(have record.Position) bool { return have.File == eventsFile })
}
