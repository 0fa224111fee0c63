package wording

// MostSeries is how many series a query of a rule's template may find, where a
// namespace wrote the rule.
const MostSeries = 100

// mostText is how long a text with a template in it may be: what is nested in it takes
// stack, to read and to run.
const mostText = 64 << 10

// mostWidth is the largest width or precision of printf.
const mostWidth = 200

// mostNested is how many ranges may be in one another.
const mostNested = 2

// Sizes, in bytes, that data is taken to have, and lengths of collections.
const (
	dataSize    = 64 // a label's value, a name, a number
	elementSize = 1 << 10
	pairsSize   = 2 << 10
	mostPairs   = 16
)

// language is what one of the two libraries knows.
type language struct {
	limit   float64 // bytes that a text may make
	before  string  // what the library puts before a text
	names   map[string]kind
	group   float64 // elements of a group
	groupIs float64 // its size
	whole   float64 // size of what a template gets
	shipped bool    // templates with a name may be called
	made    map[string]float64
	text    map[string]float64
	may     string // what range may go through
}

// fieldsOf names the fields that hold more than one, of any value that was not made in
// the template itself.
func fieldsOf(k kind, names ...string) map[string]kind {
	out := map[string]kind{}
	for _, n := range names {
		out[n] = k
	}
	return out
}

// ofRules are the templates of labels and annotations of alerts.
func ofRules() language {
	return language{limit: 512 << 10, group: MostSeries, groupIs: elementSize, whole: 2 * pairsSize,
		before: `{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}`,
		names:  fieldsOf(pairs, "Labels", "ExternalLabels"),
		text: map[string]float64{"reReplaceAll": 1, "safeHtml": 1, "title": 3, "toUpper": 3, "toLower": 3, "graphLink": 4, "tableLink": 4, "stripPort": 1, "stripDomain": 1,
			"humanize": 1, "humanize1024": 1, "humanizeDuration": 1, "humanizePercentage": 1, "humanizeTimestamp": 1, "pathPrefix": 1, "externalURL": 1, "urlQueryEscape": 3,
			"label": 1, "strvalue": 1},
		made: map[string]float64{"match": 0, "toTime": 0, "toDuration": 0, "now": 0, "parseDuration": 0, "value": 1, "args": 1},
		may:  "the result of query and labels"}
}

// ofNotifications are the templates of receivers.
func ofNotifications() language {
	names := fieldsOf(pairs, "Labels", "Annotations", "GroupLabels", "CommonLabels", "CommonAnnotations", "RouteLabels", "SortedPairs", "Names", "Values")
	for _, n := range []string{"Alerts", "Firing", "Resolved"} {
		names[n] = group
	}
	return language{limit: 16 << 20, group: 256, groupIs: 256 << 10, whole: 256 << 10, shipped: true, names: names,
		text: map[string]float64{"toUpper": 3, "toLower": 3, "title": 3, "trimSpace": 1, "join": 1, "safeHtml": 1, "safeUrl": 1, "urlUnescape": 1, "reReplaceAll": 1, "routeLabels": 1,
			"date": 8, "humanizeDuration": 1, "toJson": 6, "base64encode": 2, "base64decode": 1},
		made: map[string]float64{"match": 0, "stringSlice": 1, "tz": 0, "now": 0, "since": 0, "toDate": 0, "mustToDate": 0, "list": 1, "append": 1, "dict": 1},
		may:  ".Alerts, .Alerts.Firing and the labels and annotations of alerts"}
}

// bothText and bothMade are the functions of text/template: what each makes of its arguments.
var (
	bothText = map[string]float64{"html": 6, "js": 6, "urlquery": 3, "print": 1, "println": 1, "printf": 1}
	bothMade = map[string]float64{"len": 0, "not": 0, "eq": 0, "ne": 0, "lt": 0, "le": 0, "gt": 0, "ge": 0, "index": 1, "slice": 1, "and": 1, "or": 1}
)
