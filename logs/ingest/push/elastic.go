package push

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"perch/logs/ingest/entry"
	"perch/logs/record"
)

// Elastic serves what shippers of Elasticsearch need: _bulk, _doc and _create,
// with the index in the path or without, and what they ask before. It is mounted
// with its prefix stripped. Documents become lines: message, log or msg is the
// line, @timestamp its time, the rest are fields, the index one of them. Updates
// and deletions are refused for each item, since lines never change.
func (p *Push) Elastic() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /_bulk", p.bulk)
	mux.HandleFunc("PUT /_bulk", p.bulk)
	mux.HandleFunc("POST /{index}/_bulk", p.bulk)
	mux.HandleFunc("PUT /{index}/_bulk", p.bulk)
	mux.HandleFunc("POST /{index}/_doc", p.document)
	mux.HandleFunc("PUT /{index}/_doc/{id}", p.document)
	mux.HandleFunc("PUT /{index}/_create/{id}", p.document)
	mux.HandleFunc("POST /{index}/_create/{id}", p.document)
	mux.HandleFunc("/", p.probe)
	return telling(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Elastic-Product", "Elasticsearch") // clients refuse to speak without
		w.Header().Set("Content-Type", answerType(r))
		if _, err := p.parts.Identify(r); err != nil {
			p.m.requests.WithLabelValues("elastic", resultUnknown).Inc()
			fail(w, http.StatusForbidden, "security_exception", err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// answerType repeats the version that the client's media type asks for.
func answerType(r *http.Request) string {
	const vendor = "application/vnd.elasticsearch+json"
	if a := r.Header.Get("Accept"); strings.HasPrefix(a, vendor) && len(a) < 100 {
		return a
	}
	return typeJSON
}

// probe answers what shippers ask before they send. Names of versions are such
// that they take the plain way: no templates, no life cycles.
func (p *Push) probe(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/_bulk") { // /index/type/_bulk of older ones
		index, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		r.SetPathValue("index", index)
		p.bulk(w, r)
		return
	}
	answer := ""
	switch path := strings.Trim(r.URL.Path, "/"); {
	case path == "":
		answer = `{"name":"perch","cluster_name":"perch","cluster_uuid":"perch","version":{"number":"8.15.0","build_flavor":"default","build_type":"tar","build_snapshot":false,"lucene_version":"9.11.1","minimum_wire_compatibility_version":"7.17.0","minimum_index_compatibility_version":"7.0.0"},"tagline":"perch takes lines here"}`
	case path == "_license" || path == "_xpack":
		answer = `{"license":{"status":"active","uid":"perch","type":"basic","issued_to":"perch","issuer":"perch"},"features":{}}`
	case path == "_cluster/health" || strings.HasPrefix(path, "_cluster/health/"):
		answer = `{"cluster_name":"perch","status":"green","timed_out":false,"number_of_nodes":1,"number_of_data_nodes":1,"active_primary_shards":1,"active_shards":1,"relocating_shards":0,"initializing_shards":0,"unassigned_shards":0,"active_shards_percent_as_number":100.0}`
	case path == "_cat/health": // rsyslog asks before each try
		w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		answer = fmt.Sprintf("%d %s perch green 1 1 1 1 0 0 0 0 - 100.0%%\n", time.Now().Unix(), time.Now().UTC().Format(time.TimeOnly))
	case strings.HasPrefix(path, "_index_template/"), strings.HasPrefix(path, "_template/"), strings.HasPrefix(path, "_component_template/"),
		strings.HasPrefix(path, "_ilm/policy/"), strings.HasPrefix(path, "_ingest/pipeline/"), strings.HasPrefix(path, "_data_stream/"):
		if r.Method == http.MethodPut || r.Method == http.MethodPost {
			answer = `{"acknowledged":true}` // there is nothing to set up
		}
	}
	if answer == "" {
		fail(w, http.StatusNotFound, "not_found", fmt.Errorf("%s %s is not known here: perch takes _bulk, _doc and _create, and is searched at /logs/api/v1/query", r.Method, r.URL.Path))
		return
	}
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(answer)) // the client is gone if this fails
	}
}

func fail(w http.ResponseWriter, code int, kind string, err error) {
	w.WriteHeader(code)
	reason := map[string]any{"type": kind, "reason": err.Error()}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": code, // the client is gone if this fails
		"error": map[string]any{"root_cause": []any{reason}, "type": kind, "reason": err.Error()}})
}

func refuse(w http.ResponseWriter, err error) {
	code := status(w, err)
	kind := map[int]string{http.StatusTooManyRequests: "es_rejected_execution_exception", http.StatusServiceUnavailable: "unavailable_shards_exception"}[code]
	if kind == "" {
		kind = "illegal_argument_exception"
	}
	fail(w, code, kind, err)
}

// item is what becomes of one action of a bulk.
type item struct {
	action, index, id string
	err               string
}

// bulk stores the documents of a bulk and answers for each. Bad ones are
// answered with 400, the others are stored.
func (p *Push) bulk(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	var items []item
	_, err := p.receive("elastic", w, r, func(body []byte, b *batch) error {
		var err error
		items, err = decodeBulk(body, r.PathValue("index"), b)
		return err
	})
	if err != nil {
		refuse(w, err)
		return
	}
	errorsSeen := false
	for _, it := range items {
		errorsSeen = errorsSeen || it.err != ""
	}
	out := strconv.AppendInt([]byte(`{"took":`), time.Since(begin).Milliseconds(), 10)
	out = strconv.AppendBool(append(out, `,"errors":`...), errorsSeen)
	out = append(out, `,"items":[`...)
	for i, it := range items {
		if i > 0 {
			out = append(out, ',')
		}
		out = it.append(out)
	}
	_, _ = w.Write(append(out, "]}"...)) // stored either way
}

func (it item) append(out []byte) []byte {
	out = append(append(append(out, `{"`...), it.action...), `":{"_index":`...)
	out = appendJSON(out, it.index)
	out = appendJSON(append(out, `,"_id":`...), it.id)
	if it.err != "" {
		out = append(out, `,"status":400,"error":{"type":"mapper_parsing_exception","reason":`...)
		return append(appendJSON(out, it.err), `}}}`...)
	}
	return append(out, `,"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1,"status":201}}`...)
}

func appendJSON(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string has a written form
	return append(dst, b...)
}

const (
	maxAction   = 64 << 10 // bytes of the line before a document
	answerBytes = 200      // of the answer to an item, besides names: of these a byte may be six of JSON
)

// decodeBulk reads pairs of lines: {"create":{"_index":…,"_id":…}} and the
// document.
func decodeBulk(body []byte, index string, b *batch) ([]item, error) {
	var items []item
	b.named = true
	next := func() []byte {
		for len(body) > 0 {
			line, rest, _ := bytes.Cut(body, []byte{'\n'})
			body = rest
			if line = bytes.TrimSpace(line); len(line) > 0 {
				return line
			}
		}
		return nil
	}
	for head := next(); head != nil; head = next() {
		var action map[string]struct {
			Index string `json:"_index"`
			ID    string `json:"_id"`
		}
		if len(head) > maxAction {
			return nil, fmt.Errorf("%w: action %d is longer than %d bytes", errLarge, len(items)+1, maxAction)
		}
		if err := json.Unmarshal(head, &action); err != nil || len(action) != 1 {
			return nil, fmt.Errorf("%w: action %d is not {\"create\":{…}}", errFormat, len(items)+1)
		}
		it := item{index: index}
		for name, meta := range action {
			it.action, it.id = name, meta.ID
			if meta.Index != "" {
				it.index = meta.Index
			}
		}
		switch it.action {
		case "index", "create":
			doc := next()
			if doc == nil {
				return nil, fmt.Errorf("%w: action %d has no document", errFormat, len(items)+1)
			}
			r := record.Record{}
			if have, ok := entry.FromJSON(&r, doc); ok {
				b.named = b.named && it.id != ""
				b.left += have.Left
				if it.index != "" {
					b.left += entry.Add(&r, "index", it.index)
				}
				if err := b.add(r); err != nil {
					return nil, err
				}
			} else {
				it.err = "the document is not a JSON object"
			}
		case "update":
			next()
			it.err = "lines cannot be updated"
		case "delete":
			it.err = "lines cannot be deleted one by one"
		default:
			return nil, fmt.Errorf("%w: action %.40q is not known", errFormat, it.action)
		}
		if it.err != "" {
			b.bad++
		}
		if b.size += answerBytes + 6*int64(len(it.index)+len(it.id)); b.size > b.limit { // the answer takes memory too
			return nil, errLarge
		}
		items = append(items, it)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("%w: the bulk is empty", errFormat)
	}
	return items, nil
}

// document stores one document.
func (p *Push) document(w http.ResponseWriter, r *http.Request) {
	index, id := r.PathValue("index"), r.PathValue("id")
	_, err := p.receive("elastic", w, r, func(body []byte, b *batch) error {
		rec := record.Record{}
		have, ok := entry.FromJSON(&rec, body)
		if !ok {
			return fmt.Errorf("%w: the document is not a JSON object", errFormat)
		}
		b.named = id != ""
		b.left += have.Left + entry.Add(&rec, "index", index)
		return b.add(rec)
	})
	if err != nil {
		refuse(w, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
	out := appendJSON([]byte(`{"_index":`), index)
	out = appendJSON(append(out, `,"_id":`...), id)
	_, _ = w.Write(append(out, `,"_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":0,"_primary_term":1}`...)) // stored either way
}
