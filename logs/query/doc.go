// Package query answers questions about log lines.
//
// It owns the query language (LANGUAGE.md), the plan from a query to the blocks
// that must be read, and the HTTP API:
//
//	GET|POST …/query      q|query (several: a line must match all; positions in errors are within one), from, to, limit (100, ≤ 50000), order=desc|asc, cursor, timeout
//	         NDJSON, one line each:
//	         {"time":RFC3339nano,"id","namespace","pod","container","uid","instance","node","stream","level","kind","line","fields"?:{…}}
//	         and a last line {"stats":{lines,bytes,blocks,took_ms},"partial":bool,"reason"?,"missing":[node],"hidden":[namespace],"cursor"?,
//	         "copies"?:[{node,by,at,from?,age_ms}]}
//	GET …/histogram       q, from, to, buckets (60, ≤ 2000) or step → {"from","to","step_ms","total","levels":{},"buckets":[{"time","count","levels":{}}],"stats",…as above}
//	         by=FIELD counts values of a field instead: {"by","values":{},"buckets":[{…,"values":{}}]}, the ten most frequent, "(others)" and "(none)"
//	GET …/tail            q, cursor (begin with what is stored after it, 20,000 lines at most); SSE: "id: cursor" + "data: <line as above>"; "event: dropped" data {"count"};
//	         "event: missing" data {"nodes"}; "event: error" data {"error"}; "event: hidden" data {"namespaces"}; "event: live": what was stored before has been told
//	         Lines come as they are stored, not by time. With Last-Event-ID lines from 2 s before the newest one are told again (known by their "id"), or from the begin if
//	         it ended before it was live; "event: resumed" data {"from"} says so: what was stored meanwhile with an earlier time is not told
//	GET …/fields, /values?field=F   q, from, to, limit → {"values":[{"value","count"}],"sampled":bool,…}; counts of parsed fields come from the newest 2000 lines, sampled if there are more
//	GET …/stats?field=F&by=G  q, from, to, limit → {"groups":[{"group","count","rate","with","unique","numbers","sum","min","max","average","quantiles":{"0.5":…}}],"other",…}; other are lines of groups beyond limit
//	GET …/patterns  q, from, to, limit, buckets → {"total","other","step_ms","patterns":[{"pattern","count","level","first","last","trend":[n],"id","namespace","pod","container","instance",
//	         "seen"?:{"time","id","namespace","pod","container","instance","maybe_earlier"?},"image"?}],…}
//	         a pattern is a line without its words with digits; first, id and so on tell of its first line within from..to, seen of the first that is stored and that q finds.
//	         That is looked for during 2 s: maybe_earlier is true when there may be an earlier one, and seen is absent beyond the 500 most frequent. image is that of seen;
//	         "image_not_looked_for" is true of patterns of further containers than 20, and beyond 2 s
//	GET …/context?id=ID&before=N&after=N&scope=stream|container|pod|workload|node  NDJSON as query, oldest first
//	errors: {"error","position"?,"expected"?} with status 400, 403, 404, 405, 503
//
// Times are RFC3339, unix seconds, or now-1h (units s m h d w). The last hour is the default.
// Namespaces are restricted by the function the caller injects (Doors.Allowed); what was left out is named in "hidden".
// Start reading at Engine.Query in engine.go; the language is in parse.go, plan.go and match.go.
package query
