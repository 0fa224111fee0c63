package daemon

import (
	"context"
	"log/slog"

	"gopkg.in/natefinch/lumberjack.v2"

	"perch/cmd/perch/daemon/door"
	"perch/metrics/promapi"
)

// queryLog writes who asked what, a JSON object a line, into D/log/queries.log:
// at most twice 16 MB. What perch's own roles ask is not in it.
func (r role) queryLog() func(context.Context, promapi.Finished) {
	file := &lumberjack.Logger{Filename: r.cfg.Path("log", "queries.log"), MaxSize: 16, MaxBackups: 1}
	r.group.OnStop("query log", func(context.Context) error { return file.Close() })
	log := slog.New(slog.NewJSONHandler(file, nil))
	return func(ctx context.Context, q promapi.Finished) {
		if user := door.UserOf(ctx).Name; user != "" {
			log.Info("query", "user", user, "path", q.Path, "query", q.Query, "seconds", q.Took.Seconds(), "status", q.Status)
		}
	}
}
