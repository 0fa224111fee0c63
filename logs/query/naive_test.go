package query

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"perch/logs/record"
)

// naive decides by the words of LANGUAGE.md alone, sharing only the parser.
func naive(n *node, r *record.Record) bool {
	switch n.op {
	case opAll:
		return true
	case opAnd:
		return !slices.ContainsFunc(n.kids, func(k *node) bool { return !naive(k, r) })
	case opOr:
		return slices.ContainsFunc(n.kids, func(k *node) bool { return naive(k, r) })
	case opNot:
		return !naive(n.kids[0], r)
	case opText:
		hay := string(r.Body)
		if !n.exact {
			hay = foldString(hay)
		}
		isWord := func(i int) bool {
			return i >= 0 && i < len(hay) && strings.ContainsRune("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_", rune(hay[i])) || i >= 0 && i < len(hay) && hay[i] > 0x7f
		}
		for i := range len(hay) - len(n.text) + 1 {
			end := i + len(n.text)
			if hay[i:end] == n.text && !(isWord(i-1) && isWord(i)) && (n.prefix || !(isWord(end-1) && isWord(end))) {
				return true
			}
		}
		return false
	case opRegex:
		return n.re.Match(r.Body)
	}
	level := r.Level
	if level == record.Unknown {
		level = record.Detect(r.Body)
	}
	if n.field == "level" {
		switch n.op {
		case opEqual:
			return level == n.level
		case opMatch:
			return n.re.MatchString(level.String())
		case opExists:
			return level != record.Unknown
		}
		return level != record.Unknown && n.cmp.holds(int(level)-int(n.level))
	}
	v, ok := r.Stream.Label(n.field)
	if ok {
		ok = v != ""
	} else if v, ok = sentValue(r, n.field); !ok {
		v, ok = naiveField(r.Body, n.field)
	}
	if !ok {
		return false
	}
	switch n.op {
	case opEqual:
		if !n.exact {
			v = foldString(v)
		}
		return v == n.text || n.prefix && strings.HasPrefix(v, n.text)
	case opMatch:
		return n.re.MatchString(v)
	case opExists:
		return true
	}
	f, err := strconv.ParseFloat(v, 64)
	return err == nil && (f < n.number && n.cmp.holds(-1) || f > n.number && n.cmp.holds(1) || f == n.number && n.cmp.holds(0))
}

func sentValue(r *record.Record, field string) (string, bool) {
	for _, f := range r.Fields {
		if f.Key == field {
			return f.Value, true
		}
	}
	return "", false
}

func naiveField(body []byte, field string) (string, bool) {
	var doc map[string]json.RawMessage
	if json.Unmarshal(body, &doc) == nil {
		path := strings.Split(field, ".")
		for i, key := range path {
			raw, ok := doc[key]
			if !ok {
				return "", false
			}
			if i == len(path)-1 {
				var s string
				if json.Unmarshal(raw, &s) == nil {
					return s, true
				}
				return string(raw), raw[0] != '{'
			}
			doc = nil
			if json.Unmarshal(raw, &doc) != nil {
				return "", false
			}
		}
	}
	fields, rest := naiveShape(string(body))
	if v, ok := fields[field]; ok {
		return v, true
	}
	if rest != string(body) && json.Valid([]byte(rest)) {
		return naiveField([]byte(rest), field)
	}
	m := expression(`(?:^|\s)` + regexp.QuoteMeta(field) + `=(?:"((?:[^"\\]|\\.)*)"|(\S*))`).FindStringSubmatchIndex(rest)
	if m == nil {
		return "", false
	}
	if m[2] >= 0 {
		return rest[m[2]:m[3]], true
	}
	return strings.TrimRight(rest[m[4]:m[5]], ",;)]}"), true
}

const (
	klogRE    = `(?s)^(?P<severity>[IWEF])\d{4} [\d:]{8}\.\d{6} +(?P<thread>\d+) (?P<caller>[^ :\]]+:\d+)\] (?:"(?P<msg>(?:[^"\\]|\\.)*)"|(?P<msg>[^"\n][^\n]*))`
	accessRE  = `^(?P<remote>\S+) \S+ (?P<user>\S+) \[[^\]]+\] "(?P<method>\S+) (?P<path>\S+) (?P<protocol>\S+)" (?P<status>\d{3}) (?P<bytes>\d+|-)(?: "(?P<referer>[^"]*)" "(?P<agent>[^"]*)")?`
	errorRE   = `^[\d/]{10} [\d:]{8} \[(?P<severity>\w+)\] (?P<pid>\d+)#(?P<thread>\d+): (?:\*(?P<connection>\d+) )?(?P<msg>.*?)(?:, client: (?P<client>[^,]*), server: (?P<server>[^,]*), request: "(?P<request>[^"]*)", upstream: "(?P<upstream>[^"]*)", host: "(?P<host>[^"]*)")?$`
	rfc5424RE = `^<(?P<pri>\d+)>1 \S+ (?P<host>\S+) (?P<app>\S+) (?P<pid>\S+) (?P<msgid>\S+) (?:-|\[(?P<sd>.*")\])(?: |$)(?P<msg>.*)`
	rfc3164RE = `^(?:<(?P<pri>\d+)>)?[A-Z][a-z]{2} [ \d]\d [\d:]{8} (?P<host>\S+) (?P<app>[^\s\[:]+)(?:\[(?P<pid>\d+)\])?: (?P<msg>.*)`
)

var compiled sync.Map // of expressions, which the naive scan asks again and again

func expression(text string) *regexp.Regexp {
	if re, ok := compiled.Load(text); ok {
		return re.(*regexp.Regexp)
	}
	re := regexp.MustCompile(text)
	compiled.Store(text, re)
	return re
}

// naiveShape finds fields of well-known shapes with regular expressions.
func naiveShape(line string) (fields map[string]string, rest string) {
	for _, expr := range []string{klogRE, accessRE, errorRE, rfc5424RE, rfc3164RE} {
		re := expression(strings.Replace(expr, "(?P<msg>[^\"", "(?P<msg2>[^\"", 1))
		m := re.FindStringSubmatchIndex(line)
		if m == nil {
			continue
		}
		fields = map[string]string{}
		for i, name := range re.SubexpNames() {
			if i == 0 || m[2*i] < 0 {
				continue
			}
			v := line[m[2*i]:m[2*i+1]]
			name = strings.TrimSuffix(name, "2")
			if v == "-" || v == "" {
				continue
			}
			if expr == klogRE && name == "msg" {
				v = strings.ReplaceAll(v, `\"`, `"`)
			}
			fields[name] = v
		}
		if expr == klogRE {
			fields["severity"] = map[string]string{"I": "info", "W": "warning", "E": "error", "F": "fatal"}[fields["severity"]]
		}
		if n, err := strconv.Atoi(fields["pri"]); err == nil {
			fields["facility"] = strings.Fields("kern user mail daemon auth syslog lpr news uucp cron authpriv ftp ntp audit alert clock local0 local1 local2 local3 local4 local5 local6 local7")[n/8]
			fields["severity"] = strings.Fields("emerg alert crit error warning notice info debug")[n%8]
		}
		if sd := fields["sd"]; sd != "" {
			id, params, _ := strings.Cut(sd, " ")
			for _, kv := range expression(`([^ =]+)="((?:[^"\\]|\\.)*)"`).FindAllStringSubmatch(params, -1) {
				fields[id+"."+kv[1]] = strings.ReplaceAll(kv[2], `\"`, `"`)
			}
		}
		delete(fields, "pri")
		delete(fields, "sd")
		rest = line[m[1]:]
		if expr == rfc5424RE || expr == rfc3164RE || expr == klogRE && m[len(m)-1] >= 0 {
			rest = line[m[len(m)-2]:] // the message
		}
		return fields, rest
	}
	return nil, line
}
