package record

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func sample() ([]Record, []Position) {
	a := &Stream{Namespace: "shop", Pod: "web-1", UID: "u1", Container: "app", Instance: "0", Node: "n1", Output: Stdout, Kind: KindLog}
	b := &Stream{Namespace: HostNamespace, Node: "n1", Output: Forward, Kind: KindLog}
	return []Record{
			{Time: 10, Stream: a, Level: Info, Body: []byte("hello")},
			{Time: 5, Stream: b, Body: []byte("two\nlines \xff"), Fields: []Field{{"status", "500"}}},
			{Time: 1 << 60, Stream: a, Body: []byte{}},
		}, []Position{
			{File: "shop_web-1_u1/app/0", Inode: 7, Print: 1 << 63, Stdout: 12, Stderr: 3},
		}
}

func TestBatchComesBackAsItWasWritten(t *testing.T) {
	records, positions := sample()
	got, err := DecodeBatch(AppendBatch(nil, records, positions))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Records, records) || !reflect.DeepEqual(got.Positions, positions) {
		t.Fatalf("have %+v\nwant %+v %+v", got, records, positions)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(AppendBatch(nil, nil, nil))
	r, p := sample()
	f.Add(AppendBatch(nil, r, p))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeBatch(b)
		if err != nil {
			return
		}
		again, err := DecodeBatch(AppendBatch(nil, got.Records, got.Positions))
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Records) != len(got.Records) {
			t.Fatalf("have %d records, want %d", len(again.Records), len(got.Records))
		}
	})
}

func TestDetect(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want Level
	}{
		"a JSON level field is read":             {`{"ts":1,"level":"error","msg":"INFO"}`, Error},
		"pino's number is read":                  {`{"level":40,"msg":"x"}`, Warn},
		"a number of another count is none":      {`{"level":400,"msg":"x"}`, Unknown},
		"nor is one of OpenTelemetry":            {`{"severity":17,"msg":"x"}`, Unknown},
		"a logfmt field is read":                 {`ts=2026 level=debug msg="ERROR in name"`, Debug},
		"klog's letter is read":                  {`W1120 10:11:12.000001 1 x.go:1] slow`, Warn},
		"an upper-case word is read":             {`2026-11-20 10:00:00,123 ERROR dfs.DataNode: gone`, Error},
		"a bracketed word is read":               {`[Sun Dec 04] [error] mod_jk child`, Error},
		"a word at the start with colon":         {`warning: deprecated`, Warn},
		"a lower-case word in prose is no level": {`could not find error page`, Unknown},
		"an identifier with digits is no level":  {`ERR0R INFO2 x`, Unknown},
		"an empty line has none":                 {``, Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Detect([]byte(c.line)); got != c.want {
				t.Fatalf("have %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte(`{"level":`))
	f.Add([]byte(`I1120 `))
	f.Add([]byte(`level=`))
	f.Fuzz(func(_ *testing.T, b []byte) { Detect(b) })
}

func TestCutSaysHowMuchIsMissing(t *testing.T) {
	short := []byte("short")
	if got := Cut(short, 0); !bytes.Equal(got, short) {
		t.Fatalf("have %q", got)
	}
	got := Cut(bytes.Repeat([]byte("x"), MaxBody+5), 2)
	if !strings.HasSuffix(string(got), "x …[cut: 7 bytes more]") {
		t.Fatalf("have %q", got[MaxBody-5:])
	}
}

func TestCutFieldsSayHowMuchIsMissing(t *testing.T) {
	long := strings.Repeat("x", MaxFields)
	got := CutFields([]Field{{"a", "whole"}, {"b", long}, {"c", "after"}, {long, ""}})
	for i, want := range []Field{
		{"a", "whole"},
		{"b", long[5:] + " …[cut: 5 bytes more]"},
		{"c", " …[cut: 5 bytes more]"},
		{long[:1024] + " …[cut: 1047552 bytes more]", ""},
	} {
		if got[i] != want {
			t.Errorf("field %d is …%q: …%q", i, got[i].Key[max(0, len(got[i].Key)-40):], got[i].Value[max(0, len(got[i].Value)-40):])
		}
	}
}

func TestStreamHashTellsLabelsApart(t *testing.T) {
	a := Stream{Namespace: "ab", Pod: "c"}
	b := Stream{Namespace: "a", Pod: "bc"}
	if a.Hash() == b.Hash() {
		t.Fatal("labels run into each other")
	}
}

func BenchmarkDetect(b *testing.B) {
	line := []byte(`2026-11-20T10:11:12.123456Z request served path=/api/v1/cart status=200 took=12ms user=ab12`)
	b.ReportAllocs()
	for b.Loop() {
		Detect(line)
	}
}
