package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestTargetsSayWhyOfEveryObject(t *testing.T) {
	var l targetList
	if err := json.Unmarshal([]byte(`{"targets": [{"node": "n1", "url": "http://10.0.0.1:80/metrics", "labels": {"job": "web", "namespace": "shop", "pod": "web-1"}, "health": "up", "last": "0001-01-01T00:00:00Z"}],
		"leftOut": [], "objects": [{"from": "servicemonitor/shop/a", "targets": 1, "up": 1, "why": []}, {"from": "servicemonitor/shop/b", "targets": 0, "up": 0, "why": ["no service matches", "a field does nothing"]}]}`), &l); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := l.write(&b); err != nil {
		t.Fatal(err)
	}
	want := `STATE   JOB   OBJECT       NODE   URL                          LAST    REASON
up      web   shop/web-1   n1     http://10.0.0.1:80/metrics   never   

ASKED BY                TARGETS   UP   WHY NOT MORE
servicemonitor/shop/a   1         1    
servicemonitor/shop/b   0         0    no service matches
                                       a field does nothing
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
