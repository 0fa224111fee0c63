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
	if err := o.Check(isOwn); err != nil {
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

func TestHeadersKeepTheirNamesAndComeFromNoFile(t *testing.T) {
	spec := func(header string) string {
		return "route: {receiver: a}\nreceivers: [{name: a, webhookConfigs: [{url: 'http://a.example', httpConfig: {httpHeaders: {X-Api-Key: " + header + "}}}]}]"
	}
	o := read(t, spec("{values: [v], secrets: [{name: hooks, key: token}]}"))
	if err := o.Check(isOwn); err != nil {
		t.Fatal(err)
	}
	text, err := o.Text(values(map[string]string{"hooks/token": "t0ken"}))
	if err != nil {
		t.Fatal(err)
	}
	merged, problems := route.Merge(checkBase, []route.Own{{Namespace: "shop", Name: "team", Text: text}})
	conf, err := config.Load(merged)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	headers := conf.Receivers[len(conf.Receivers)-1].WebhookConfigs[0].HTTPConfig.HTTPHeaders.Headers
	if h, ok := headers["X-Api-Key"]; !ok || len(h.Values) != 1 || len(h.Secrets) != 1 || h.Secrets[0] != "t0ken" {
		t.Errorf("headers %v", headers)
	}
	if err := read(t, spec("{files: [/etc/shadow]}")).Check(isOwn); err == nil || !strings.Contains(err.Error(), "names no files of the server: http_headers.X-Api-Key.files") {
		t.Errorf("a file: %v", err)
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
			err := read(t, c.spec).Check(isOwn)
			if err == nil || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "shop/team/") {
				t.Errorf("said %v, want %q", err, c.say)
			}
		})
	}
	o := read(t, good+"receivers: [{name: a, webhookConfigs: [{urlSecret: {name: hooks, key: url}}]}]")
	if err := o.Check(isOwn); err != nil {
		t.Errorf("a Secret may come later: %v", err)
	}
	if _, err := o.Text(values(nil)); err == nil || err.Error() != "spec.receivers[0].webhookConfigs[0].urlSecret: Secret hooks is not there" {
		t.Errorf("a Secret that is not there: %v", err)
	}
}

// isOwn stands for what only the machine that sends may reach.
func isOwn(address string) bool { return strings.Contains(address, "own.example") }

func TestAReceiverThatNamesTheMachineThatSendsIsRefusedWithItsPlace(t *testing.T) {
	for settings, say := range map[string]string{
		"webhookConfigs: [{url: 'http://a.example'}, {url: 'http://own.example/x?token=hush'}]":                                                                                         "webhookConfigs[1].url: receiver \"hook\": own.example:80 ",
		"webhookConfigs: [{url: 'https://u:hush@own.example'}]":                                                                                                                         "webhookConfigs[0].url: receiver \"hook\": own.example:443 ",
		"webhookConfigs: [{url: 'http://a.example', httpConfig: {proxyURL: 'http://own.example:3128'}}]":                                                                                "webhookConfigs[0].httpConfig.proxyURL: receiver \"hook\": own.example:3128 ",
		"webhookConfigs: [{url: 'http://a.example', httpConfig: {proxyUrl: 'socks5://own.example'}}]":                                                                                   "webhookConfigs[0].httpConfig.proxyUrl: receiver \"hook\": own.example:1080 ",
		"webhookConfigs: [{url: 'http://a.example', httpConfig: {oauth2: {clientId: {secret: {name: a, key: b}}, clientSecret: {name: a, key: b}, tokenUrl: 'http://own.example/t'}}}]": "webhookConfigs[0].httpConfig.oauth2.tokenUrl: receiver \"hook\": own.example:80 ",
		"opsgenieConfigs: [{apiKey: {name: a, key: b}, apiURL: 'http://own.example'}]":                                                                                                  "opsgenieConfigs[0].apiURL: receiver \"hook\": own.example:80 ",
		"pagerdutyConfigs: [{routingKey: {name: a, key: b}, url: 'http://own.example'}]":                                                                                                "pagerdutyConfigs[0].url: receiver \"hook\": own.example:80 ",
		"telegramConfigs: [{botToken: {name: a, key: b}, chatID: 1, apiURL: 'http://own.example'}]":                                                                                     "telegramConfigs[0].apiURL: receiver \"hook\": own.example:80 ",
		"victoropsConfigs: [{apiKey: {name: a, key: b}, routingKey: r, apiUrl: 'http://own.example'}]":                                                                                  "victoropsConfigs[0].apiUrl: receiver \"hook\": own.example:80 ",
		"emailConfigs: [{to: a@b.example, smarthost: 'own.example:25'}]":                                                                                                                "emailConfigs[0].smarthost: receiver \"hook\": own.example:25 ",
		// what people are shown is not connected
		"pagerdutyConfigs: [{routingKey: {name: a, key: b}, clientURL: 'http://own.example', pagerDutyLinkConfigs: [{href: 'http://own.example', text: b}]}]":     "",
		"pushoverConfigs: [{userKey: {name: a, key: b}, token: {name: a, key: b}, url: 'http://own.example'}]":                                                    "",
		"slackConfigs: [{apiURL: {name: a, key: b}, channel: a, titleLink: 'http://own.example', actions: [{type: button, text: t, url: 'http://own.example'}]}]": "",
		"webhookConfigs: [{urlSecret: {name: a, key: b}}]": "",
	} {
		o := read(t, "route: {receiver: good}\nreceivers: [{name: good}, {name: hook, "+settings+"}]")
		err := o.Check(isOwn)
		if say == "" {
			if err != nil {
				t.Errorf("%s: %v", settings, err)
			}
			continue
		}
		if want := "spec.receivers[1]." + say; err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want %q", settings, err, want)
		}
		if err := o.Check(func(string) bool { return false }); err != nil {
			t.Errorf("%s: where it may be named: %v", settings, err)
		}
	}
}

func TestAnAddressOfASecretIsKnownWhenItsValueIs(t *testing.T) {
	o := read(t, "route: {receiver: a}\nreceivers: [{name: a, webhookConfigs: [{urlSecret: {name: s, key: good}}, {urlSecret: {name: s, key: own}}], discordConfigs: [{apiURL: {name: s, key: own}}], msteamsv2Configs: [{webhookURL: {name: s, key: own}}]}]")
	value := values(map[string]string{"s/good": "https://x.example/", "s/own": "http://own.example/hush\n"})
	got := o.Refused(value, isOwn)
	if len(got) != 3 || !strings.HasPrefix(got[0], "spec.receivers[0].discordConfigs[0].apiURL: receiver \"a\": own.example:80 ") || !strings.HasPrefix(got[1], "spec.receivers[0].msteamsv2Configs[0].webhookURL: ") ||
		!strings.HasPrefix(got[2], "spec.receivers[0].webhookConfigs[1].urlSecret: ") || strings.Contains(strings.Join(got, ""), "hush") {
		t.Errorf("%q", got)
	}
	if got := o.Refused(values(nil), isOwn); len(got) != 0 {
		t.Errorf("without the Secret: %q", got)
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
		if o.Check(isOwn) != nil {
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

func TestAReceiverWithItsOwnServerOwesItsOwnCredentials(t *testing.T) {
	base := "global: {smtp_smarthost: 'm.example:25', smtp_from: a@b.example, smtp_auth_username: u, smtp_auth_password: p, telegram_bot_token: x}\nroute: {receiver: a}\nreceivers: [{name: a}]\n"
	for spec, say := range map[string]string{
		`{receivers: [{name: mine, telegramConfigs: [{apiURL: "http://catch.red.svc", chatID: 1}]}]}`:                              `spec: receiver "mine": telegram_configs[0] names its own api_url and needs its own bot_token: that of the cluster is not sent there`,
		`{receivers: [{name: mine, emailConfigs: [{to: a@b.example, smarthost: "catch.red.svc:25"}]}]}`:                            `spec: receiver "mine": email_configs[0] names its own smarthost and needs its own auth_password: that of the cluster is not sent there`,
		`{receivers: [{name: mine, emailConfigs: [{to: a@b.example}]}]}`:                                                           "",
		`{receivers: [{name: mine, telegramConfigs: [{apiURL: "http://catch.red.svc", chatID: 1, botToken: {name: s, key: k}}]}]}`: "",
	} {
		o := read(t, spec)
		if err := o.Owes(base); err == nil && say != "" || err != nil && err.Error() != say {
			t.Errorf("%s: %v", spec, err)
		}
	}
	if err := read(t, `{route: {receiver: mine}, receivers: [{name: mine, telegramConfigs: [{apiURL: "http://catch.red.svc", chatID: 1}]}]}`).Check(isOwn); err == nil || !strings.Contains(err.Error(), "needs its own bot_token") {
		t.Errorf("Check, without the cluster's configuration: %v", err)
	}
}
