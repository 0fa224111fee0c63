package amconfig

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/alertmanager/config"
	"sigs.k8s.io/yaml"

	"perch/alerts/route"
)

func read(t *testing.T, spec string) Object {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	return Read("shop", "team", text)
}

func values(have map[string]string) func(Ref) (string, error) {
	return func(r Ref) (string, error) {
		if v, ok := have[r.Name+"/"+r.Key]; ok {
			return v, nil
		}
		return "", errors.New("Secret " + r.Name + " is not there")
	}
}

const everything = `
route:
  receiver: all
  groupBy: [job]
  groupWait: 30s
  groupInterval: ""
  repeatInterval: 12h
  matchers: [{name: severity, matchType: "=~", value: warning|critical}]
  muteTimeIntervals: [night]
  routes: [{receiver: nobody, matchers: [{name: alertname, value: 'a "quoted" one'}, {name: x, value: y.*, regex: true}], continue: true}]
inhibitRules: [{sourceMatch: [{name: severity, value: critical}], targetMatch: [{name: severity, value: warning, matchType: "="}], equal: [pod]}]
muteTimeIntervals: [{name: night, timeIntervals: [{times: [{startTime: "22:00", endTime: "24:00"}], weekdays: ["monday:friday"], daysOfMonth: [{start: 1, end: 5}, {start: -1}], months: ["january:march"], years: ["2026:2030"]}]}]
receivers:
- name: nobody
- name: all
  webhookConfigs:
  - {urlSecret: {name: hooks, key: url}, sendResolved: true, maxAlerts: 5, httpConfig: {followRedirects: false, authorization: {type: Bearer, credentials: {name: hooks, key: token}}, tlsConfig: {ca: {}, insecureSkipVerify: true, serverName: h}}}
  - {url: "http://h.example/", httpConfig: {basicAuth: {username: {name: hooks, key: user}, password: {name: hooks, key: token}}, proxyURL: "http://p.example:3128"}}
  - {url: "http://h.example/2", httpConfig: {bearerTokenSecret: {name: hooks, key: token}, oauth2: null}}
  - {url: "http://h.example/3", httpConfig: {oauth2: {clientId: {configMap: {name: ids, key: id}}, clientSecret: {name: hooks, key: token}, tokenUrl: "http://t.example", endpointParams: {aB: c}}}}
  slackConfigs:
  - {apiURL: {name: hooks, key: url}, channel: "#a", sendResolved: true, shortFields: true, mrkdwnIn: [text], fields: [{title: a, value: b, short: true}], actions: [{type: button, text: t, name: n, confirm: {text: sure, okText: "yes", dismissText: "no"}}]}
  pagerdutyConfigs:
  - {routingKey: {name: hooks, key: token}, clientURL: "http://x.example", details: [{key: firing, value: "{{ .Alerts }}"}], pagerDutyImageConfigs: [{href: a, src: b, alt: c}], pagerDutyLinkConfigs: [{href: a, text: b}]}
  emailConfigs:
  - {to: a@b.example, requireTLS: false, authUsername: u, authPassword: {name: hooks, key: token}, headers: [{key: Subject, value: hello}]}
  opsgenieConfigs:
  - {apiKey: {name: hooks, key: token}, apiURL: "https://o.example", responders: [{name: ops, type: team}], details: [{key: a, value: b}], updateAlerts: true}
  telegramConfigs: [{botToken: {name: hooks, key: token}, chatID: -12, parseMode: HTML, disableNotifications: true}]
  victoropsConfigs: [{apiKey: {name: hooks, key: token}, routingKey: r, customFields: [{key: a, value: b}]}]
  pushoverConfigs: [{userKey: {name: hooks, key: token}, token: {name: hooks, key: token}, retry: 1m, expire: 1h}]
  wechatConfigs: [{apiSecret: {name: hooks, key: token}, corpID: c, agentID: "1", toUser: u}]
  snsConfigs: [{topicARN: "arn:x", sigv4: {region: eu, accessKey: {name: hooks, key: user}, secretKey: {name: hooks, key: token}}}]
  discordConfigs: [{apiURL: {name: hooks, key: url}, title: t}]
  webexConfigs: [{roomID: r, httpConfig: {authorization: {credentials: {name: hooks, key: token}}}}]
  msteamsConfigs: [{webhookUrl: {name: hooks, key: url}}]
  msteamsv2Configs: [{webhookURL: {name: hooks, key: url}}]
`

func TestEveryReceiverBecomesAlertmanagersOwn(t *testing.T) {
	o := read(t, everything)
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	text, err := o.Text(values(map[string]string{"hooks/url": "https://hook.example/secret\n", "hooks/token": "t0ken", "hooks/user": "u", "ids/id": "client"}))
	if err != nil {
		t.Fatal(err)
	}
	merged, problems := route.Merge(checkBase, []route.Own{{Namespace: "shop", Name: "team", Text: text}})
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, text)
	}
	conf, err := config.Load(merged)
	if err != nil {
		t.Fatal(err)
	}
	r := conf.Receivers[2]
	if r.Name != "shop/team/all" || len(r.WebhookConfigs) != 4 || len(r.SlackConfigs) != 1 || len(r.PagerdutyConfigs) != 1 || len(r.EmailConfigs) != 1 || len(r.OpsGenieConfigs) != 1 ||
		len(r.TelegramConfigs) != 1 || len(r.VictorOpsConfigs) != 1 || len(r.PushoverConfigs) != 1 || len(r.WechatConfigs) != 1 || len(r.SNSConfigs) != 1 || len(r.DiscordConfigs) != 1 ||
		len(r.WebexConfigs) != 1 || len(r.MSTeamsConfigs) != 1 || len(r.MSTeamsV2Configs) != 1 {
		t.Errorf("receivers %+v", r)
	}
	for what, got := range map[string]string{
		"https://hook.example/secret": string(r.WebhookConfigs[0].URL),
		"t0ken":                       string(r.WebhookConfigs[0].HTTPConfig.Authorization.Credentials),
		"h":                           r.WebhookConfigs[0].HTTPConfig.TLSConfig.ServerName,
		"u":                           r.WebhookConfigs[1].HTTPConfig.BasicAuth.Username,
		"client":                      r.WebhookConfigs[3].HTTPConfig.OAuth2.ClientID,
		"c":                           r.WebhookConfigs[3].HTTPConfig.OAuth2.EndpointParams["aB"],
		"{{ .Alerts }}":               r.PagerdutyConfigs[0].Details["firing"].(string),
		"hello":                       r.EmailConfigs[0].Headers["Subject"],
		"yes":                         r.SlackConfigs[0].Actions[0].ConfirmField.OkText,
	} {
		if got != what {
			t.Errorf("got %q, want %q", got, what)
		}
	}
	own := conf.Route.Routes[0]
	if m := fmt.Sprint(own.Matchers); m != `[namespace="shop" severity=~"warning|critical"]` {
		t.Errorf("matchers %s", m)
	}
	if m := fmt.Sprint(own.Routes[0].Matchers); m != `[alertname="a \"quoted\" one" x=~"y.*"]` {
		t.Errorf("matchers below %s", m)
	}
	if own.MuteTimeIntervals[0] != "shop/team/night" || len(conf.TimeIntervals) != 1 || len(conf.TimeIntervals[0].TimeIntervals[0].DaysOfMonth) != 2 {
		t.Errorf("intervals %+v", conf.TimeIntervals)
	}
	var refs []string
	for _, r := range o.Refs() {
		if name := r.Name + "/" + r.Key; !slices.Contains(refs, name) {
			refs = append(refs, name)
		}
	}
	slices.Sort(refs)
	if got := strings.Join(refs, " "); got != "hooks/token hooks/url hooks/user ids/id" {
		t.Errorf("refs %s", got)
	}
}

func TestBrokenObjectsNameTheField(t *testing.T) {
	const good = "route: {receiver: a}\n"
	for name, c := range map[string]struct{ spec, say string }{
		"a receiver that does not exist": {"route: {receiver: gone}\nreceivers: [{name: a}]", `undefined receiver "gone"`},
		"an unknown field of a receiver": {good + "receivers: [{name: a, webhookConfigs: [{url: 'http://a.example', colour: red}]}]", "spec.receivers[0].webhookConfigs[0].colour is not known"},
		"an unknown kind of receiver":    {good + "receivers: [{name: a, faxConfigs: [{}]}]", "spec.receivers[0].faxConfigs is not known"},
		"an unknown field":               {"rout: {}", "spec.rout: is not known"},
		"an unknown field of a route":    {"route: {receiver: a, routes: [{recv: b}]}\nreceivers: [{name: a}]", "spec.route.routes[0].recv: is not known"},
		"a matcher without name":         {"route: {receiver: a, matchers: [{value: x}]}\nreceivers: [{name: a}]", "spec.route.matchers[0].name: is empty"},
		"an operator that is none":       {"route: {receiver: a, matchers: [{name: x, value: y, matchType: '=='}]}\nreceivers: [{name: a}]", `spec.route.matchers[0].matchType: "=="`},
		"a broken expression":            {"route: {receiver: a, matchers: [{name: x, value: '(', matchType: '=~'}]}\nreceivers: [{name: a}]", "error parsing regexp"},
		"a time that is none":            {"route: {receiver: a, groupWait: soon}\nreceivers: [{name: a}]", "not a valid duration"},
		"a webhook without URL":          {good + "receivers: [{name: a, webhookConfigs: [{sendResolved: true}]}]", "one of url"},
		"a list that is none":            {"route: {receiver: a}\nreceivers: {name: a}", "spec.receivers: is no list"},
		"an interval that is none":       {good + "receivers: [{name: a}]\ntimeIntervals: [{name: n, timeIntervals: [{times: [{startTime: '25:00', endTime: '26:00'}]}]}]", "couldn't parse timestamp"},
		"a file of the server":           {good + "receivers: [{name: a, webhookConfigs: [{urlFile: /etc/shadow}]}]", "files of the server"},
		"no object":                      {"[]", "spec: "},
	} {
		t.Run(name, func(t *testing.T) {
			err := read(t, c.spec).Check()
			if err == nil || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "shop/team/") {
				t.Errorf("said %v, want %q", err, c.say)
			}
		})
	}
	o := read(t, good+"receivers: [{name: a, webhookConfigs: [{urlSecret: {name: hooks, key: url}}]}]")
	if err := o.Check(); err != nil {
		t.Errorf("a Secret may come later: %v", err)
	}
	if _, err := o.Text(values(nil)); err == nil || err.Error() != "spec.receivers[0].webhookConfigs[0].urlSecret: Secret hooks is not there" {
		t.Errorf("a Secret that is not there: %v", err)
	}
}

func FuzzObjects(f *testing.F) {
	text, err := yaml.YAMLToJSON([]byte(everything))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"route":{"receiver":"a","routes":[{"routes":[{}]}]},"receivers":[{"name":"a","webhookConfigs":[{"url":"http://x"}]}]}`))
	f.Add([]byte(`{"inhibitRules":[null],"timeIntervals":[{"name":1,"timeIntervals":[{"daysOfMonth":[null]}]}]}`))
	f.Fuzz(func(t *testing.T, spec []byte) {
		o := Read("shop", "team", spec)
		if o.Check() != nil {
			return
		}
		text, err := o.Text(func(Ref) (string, error) { return "https://x.example/", nil })
		if err != nil {
			t.Fatalf("accepted, but %v", err)
		}
		merged, _ := route.Merge(route.Default, []route.Own{{Namespace: "shop", Name: "team", Text: text}})
		if err := route.Check(merged); err != nil {
			t.Errorf("accepted, and broke the whole: %v\n%s", err, merged)
		}
	})
}
