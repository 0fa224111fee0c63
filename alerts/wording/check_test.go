package wording

import (
	"strings"
	"testing"
)

func TestRules(t *testing.T) {
	good := []string{
		"", "plain", "{{ $labels.pod }} is at {{ $value | humanizePercentage }}", "{{ .Labels.pod }} {{ .Value }}", `{{ printf "%.2f" $value }}`, `{{ $value | printf "%.0f" }}`,
		`{{ with query "up == 0" }}{{ . | first | value | humanize }}{{ end }}`, `{{ range query "up == 0" }}{{ .Labels.instance }}: {{ .Value }}{{ end }}`,
		`{{ with printf "node_load1{instance='%s'}" .Labels.instance | query }}{{ . | first | value }}{{ end }}`,
		`{{ range $i, $s := query "up" | sortByLabel "instance" }}{{ if $i }}, {{ end }}{{ label "instance" $s }}{{ end }}`,
		`{{ range $k, $v := $labels }}{{ $k }}={{ $v }}{{ end }}`, `{{ range query "up" }}{{ range $k, $v := .Labels }}{{ $k }}={{ $v }} {{ end }}{{ end }}`,
		`{{ if eq $labels.severity "critical" }}page{{ else if gt $value 5.0 }}ticket{{ else }}none{{ end }}`,
		`{{ reReplaceAll "(.*):.*" "$1" $labels.instance | toUpper }}`, `{{ (query "up" | first).Labels.job }}`, `{{ (toTime $value).Format "2006" }}`,
		`{{ $x := "a" }}{{ if $labels.pod }}{{ $x = "b" }}{{ end }}{{ $x }}`, `{{ $found := false }}{{ range query "up" }}{{ $found = true }}{{ end }}{{ $found }}`,
		`{{ $r := query "up" }}{{ range $r }}{{ .Value }}{{ end }}`, `{{ humanizeDuration $value }} {{ externalURL }}{{ pathPrefix }} {{ graphLink "up" }}`, `{{ index $labels "app.kubernetes.io/name" }}`,
		"{{ nothing that parses",
	}
	for _, text := range good {
		if err := Rule(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	bad := map[string]string{
		`{{range 10000000000}}xxxxxxxxxxxxxxxx{{end}}`: "goes through nothing but the result of query and labels", `{{range 9000000000000000000}}{{end}}`: "goes through", `{{range $i := 1000000000}}{{$i}}{{end}}`: "goes through",
		`{{range (args 1000000000).arg0}}{{end}}`: "goes through", `{{with args 1000000000}}{{range .arg0}}{{end}}{{end}}`: "goes through", `{{$n := 1000000000}}{{range $n}}{{end}}`: "goes through",
		`{{with 1000000000}}{{range .}}{{end}}{{end}}`: "goes through", `{{range toDuration 1000000}}{{end}}`: "goes through", `{{range len "x"}}{{end}}`: "goes through", `{{range "xxx"}}{{end}}`: "goes through",
		`{{$ = 10000000000}}{{range $}}x{{end}}`: "goes through", `{{$ := 10000000000}}{{range $}}x{{end}}`: "goes through", `{{$n := query "up"}}{{$n = 10000000000}}{{range $n}}x{{end}}`: "goes through",
		`{{$n := 10000000000}}{{if true}}{{$n := query "up"}}{{end}}{{range $n}}x{{end}}`: "goes through", `{{range (toTime 9).UnixNano}}x{{end}}`: "goes through",
		`{{$a := query "u"}}{{$b := $a}}{{$c := $a}}{{range $labels}}{{range $a}}x{{end}}{{$a = $b}}{{$b = $c}}{{$c = 10000000000}}{{end}}`: "set again",
		`{{$a := query "u"}}{{range $labels}}{{range $a}}x{{end}}{{if true}}{{$a = 10000000000}}{{end}}{{end}}`:                             "goes through",
		`{{$s := "xx"}}` + strings.Repeat(`{{$s = (args (print $s $s)).arg0}}`, 30) + `{{$s}}`:                                              "bytes", `{{"\\\\" | ` + strings.Repeat("js | ", 30) + `js}}`: "bytes", `{{"\\\\" | ` + strings.Repeat(`printf "%q" | `, 30) + `js}}`: "bytes",
		`{{$s := "x"}}{{range query "up"}}{{$s = js $s}}{{end}}`: "set again", `{{range .Value}}{{end}}`: "goes through", `{{range or .Labels 1000000000}}{{end}}`: "goes through", `{{$l := .Labels}}{{if 1}}{{$l = 1000000000}}{{end}}{{range $l}}{{end}}`: "goes through",
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`: "define", `{{block "a" .}}{{template "a" .}}{{end}}`: "define", `{{template "text" .}}`: "template", `{{define "text"}}{{template "text"}}{{end}}{{template "text"}}`: "define",
		`{{printf "%1000000d" 1}}`: "width", `{{printf "%.999999f" 1.0}}`: "width", `{{printf "%*d" 100000 1}}`: "*", `{{"%900000d" | printf}}`: "format", `{{printf .Labels.format 1}}`: "format", `{{printf (print "%900000" "d") 1}}`: "format",
		`{{$x := "aaaaaaaa"}}` + strings.Repeat(`{{$x = printf "%s%s" $x $x}}`, 40):                                  "bytes",
		`{{$x := "aaaaaaaa"}}{{range query "up"}}{{$x = printf "%s%s" $x $x}}{{end}}`:                                "grow",
		`{{$x := "aaaaaaaa"}}{{range query "up"}}{{$y := print $x $x}}{{$x = $y}}{{end}}`:                            "grow",
		`{{$x := "aaaaaaaa"}}{{range query "up"}}{{with $x}}{{$x = print . .}}{{end}}{{end}}`:                        "grow",
		`{{with "aaaaaaaa"}}` + strings.Repeat(`{{with print . . . . . . . .}}`, 12) + strings.Repeat("{{end}}", 13): "bytes",
		`{{reReplaceAll "" "$0$0$0$0$0$0$0$0" (reReplaceAll "" "aaaaaaaaaaaaaaaa" (reReplaceAll "" "aaaaaaaaaaaaaaaa" "xx"))}}{{reReplaceAll "" "aaaaaaaaaaaaaaaa" (reReplaceAll "" "aaaaaaaaaaaaaaaa" (reReplaceAll "" "aaaaaaaaaaaaaaaa" (reReplaceAll "" "aaaaaaaaaaaaaaaa" "xx")))}}`: "bytes",
		`{{range query "up"}}{{range query "up"}}{{.Value}}{{end}}{{end}}`:           "for each of all",
		`{{range .Labels}}{{range $.Labels}}{{range $.Labels}}{{end}}{{end}}{{end}}`: "nested",
		`{{range query "up"}}` + strings.Repeat("x", 6000) + `{{end}}`:               "bytes",
		`{{printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" (printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" (printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" (printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" (printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" "aaaaaaaaaaaaaaaaaaaaaaaaaa"))))}}`: "bytes",
		`{{call .Labels.f}}`: "not known", `{{.Value.CopyToSchema 8}}`: "CopyToSchema", strings.Repeat("x", 600<<10): "bytes",
	}
	for text, want := range bad {
		err := Rule(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200s: %v, want %q", text, err, want)
		}
	}
}

func TestNotifications(t *testing.T) {
	list := `{{ range .Alerts.%s }}*{{ .Labels.alertname }}* {{ .Annotations.summary }}{{ range .Labels.SortedPairs }} • {{ .Name }}: {{ .Value }}{{ end }}{{ range .Annotations.SortedPairs }} {{ .Name }}={{ .Value }}{{ end }}{{ end }}`
	good := []string{
		`{{ template "slack.default.text" . }}`, `{{ template "__subject" . }}`, `{{ template "__text_alert_list" .Alerts.Firing }}`, `{{ template "of.the.cluster" . }}`,
		`{{ range .Alerts }}{{ template "one.alert" . }}{{ end }}`,
		strings.ReplaceAll(list, "%s", "Firing") + strings.ReplaceAll(list, "%s", "Resolved"), `{{ range $i, $a := .Alerts }}{{ $i }} {{ $a.Labels.pod }}{{ end }}`, `{{ range .Alerts }}{{ range $k, $v := .Labels }}{{ $k }}{{ end }}{{ end }}`,
		`{{ range .CommonLabels.SortedPairs }}{{ .Name }}{{ end }}`, `{{ .CommonLabels.Values | join ", " }}`, `{{ range (.CommonLabels.Remove .GroupLabels.Names).SortedPairs }}{{ .Value }}{{ end }}`,
		`{{ with .CommonLabels.Remove .GroupLabels.Names }}{{ .Values | join " " }}{{ end }}`, `{{ range (index .Alerts 0).Labels.SortedPairs }}{{ .Name }}{{ end }}`, `{{ (index .Alerts 0).StartsAt.Format "15:04" }}`,
		`{{ if gt (len .Alerts.Firing) 0 }}{{ .Alerts.Firing | len }} firing{{ end }}`, `{{ .Status | toUpper }} {{ .ExternalURL }}`, `{{ toJson . }}`, `{{ range .Alerts }}{{ toJson . }}{{ end }}`, `{{ . | toJson | base64encode }}`,
		`{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}`, `{{ reReplaceAll "\n" " " .CommonAnnotations.description | urlquery }}`, `{{ $alerts := .Alerts.Firing }}{{ range $alerts }}{{ .GeneratorURL }}{{ end }}`,
		strings.Repeat("certificate", 30000), `{{ $l := append (list "a") .Status }}{{ toJson $l }}`, `{{ .StartsAt | since | humanizeDuration }}`, `{{ dict "a" .Status "b" (list 1 2) | toJson }}`, `{{ .GroupLabels.Values.Join ":" }}`, `secret{{with`, `{{ with .Alerts }}{{ range . }}{{ .Status }}{{ end }}{{ end }}`,
		`{{ range .Alerts }}{{ range .Labels.SortedPairs }}{{ .Name }}={{ .Value }}{{ end }}{{ $.GroupLabels.job }}{{ end }}`,
	}
	for _, text := range good {
		if err := Notification(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	bad := map[string]string{
		`{{range 10000000000}}xxxxxxxxxxxxxxxx{{end}}`: "goes through nothing but .Alerts", `{{range (dict "Labels" 10000000000).Labels}}{{end}}`: "goes through", `{{with dict "Alerts" 10000000000}}{{range .Alerts}}{{end}}{{end}}`: "goes through",
		`{{range index (list 10000000000) 0}}{{end}}`: "goes through", `{{range since now}}{{end}}`: "goes through", `{{template "x" 10000000000}}`: "only what it got", `{{with dict "n" 10000000000}}{{template "x" .n}}{{end}}`: "only what it got",
		`{{define "slack.default.text"}}{{template "slack.default.text" .}}{{end}}{{template "slack.default.text" .}}`: "define", `{{range .Alerts}}{{range $.Alerts}}x{{end}}{{end}}`: "for each of all",
		`{{range .Alerts}}{{template "slack.default.text" $}}{{toJson $}}{{end}}`: "bytes", `{{range .Alerts}}{{toJson $}}{{end}}`: "bytes", `{{$l := list "a"}}{{range .Alerts}}{{$l = append $l "a"}}{{end}}`: "grow",
		`{{$s := "` + strings.Repeat("x", 30000) + `"}}{{join $s (stringSlice ` + strings.Repeat(`"" `, 1000) + `)}}`: "bytes",
		"{{" + strings.Repeat(`html (html (`, 8) + `"<<<<<<<<"` + strings.Repeat("))", 8) + "}}":                      "bytes", `{{range .Alerts}}{{range .StartsAt.UnixNano}}x{{end}}{{end}}`: "goes through", `{{template "x" (list 1)}}`: "only what it got",
		`{{with index .Alerts 0}}{{template "x" .StartsAt.UnixNano}}{{end}}`: "only what it got", `{{with (index .Alerts 0).StartsAt}}{{template "x" .Unix}}{{end}}`: "only what it got",
		`{{"2"` + strings.Repeat(` | (index .Alerts 0).StartsAt.Format`, 20) + `}}`: "bytes", `{{"x" | ` + strings.Repeat("base64encode | ", 40) + `base64encode}}`: "bytes",
		`{{$l := list "x"}}` + strings.Repeat(`{{$l = list $l $l}}`, 30) + `{{$l}}`: "bytes", `{{$s := "x"}}` + strings.Repeat(`{{$s = join $s (stringSlice $s $s)}}`, 20) + `{{$s}}`: "bytes",
		`{{$a := append (list 1 2 3) "x"}}{{$b := append $a "y"}}{{$c := append $a $b}}{{print $b}}`: "may hold itself",
		strings.Repeat("{{if 1}}", 8000) + strings.Repeat("{{end}}", 8000):                           "120000 bytes",
		`{{printf "%900000d" 1}}`: "width", `{{query "up"}}`: "not known",
	}
	for text, want := range bad {
		if err := Notification(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200s: %v, want %q", text, err, want)
		}
	}
}
