package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"perch/alerts/route"
	"perch/cmd/perch/daemon/config"
)

// monitors is the plugin as the server makes it, in a cluster with a configuration of
// alerts; empty: none.
func monitors(t *testing.T, file, secret string) kadmission.ValidationInterface {
	t.Helper()
	ops := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ops", Labels: map[string]string{rulesLabel: "cluster"}}}
	client := fake.NewClientset(ops)
	if secret != "" {
		client = fake.NewClientset(ops, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: alertConfigName}, Data: map[string][]byte{alertConfigKey: []byte(secret)}})
	}
	plugins := kadmission.NewPlugins()
	admitting(role{cfg: config.Config{AlertConfig: file}}.alertConfig()).Register(plugins)
	made, err := plugins.InitPlugin(monitorCheck, nil, initializer.New(client, nil, nil, mayCreate{}, nil, nil, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	return made.(kadmission.ValidationInterface)
}

// mayCreate is what users may: admin in all namespaces, dev in shop and bank.
type mayCreate struct{}

func (mayCreate) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() != "create" || a.GetAPIGroup() != "monitoring.coreos.com" || a.GetResource() == "" {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if who := a.GetUser().GetName(); who == "admin" || who == "dev" && (a.GetNamespace() == "shop" || a.GetNamespace() == "bank") {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func TestAMonitorLooksOnlyWhereItsAuthorMayWriteOne(t *testing.T) {
	const own, any, names = `{selector: {}, podMetricsEndpoints: [{port: m}]}`, `{selector: {}, namespaceSelector: {any: true}, podMetricsEndpoints: [{port: m}]}`, `{selector: {}, namespaceSelector: {matchNames: [shop, bank, %s]}, podMetricsEndpoints: [{port: m}]}`
	const changed = `{selector: {}, namespaceSelector: {any: true}, podMetricsEndpoints: [{port: m, path: /x}]}`
	for _, c := range []struct {
		what, user, namespace, resource, spec, before string
		wrong                                         string
	}{
		{"its own namespace", "dev", "shop", "podmonitors", own, "", ""},
		{"all, of who may write in all", "admin", "shop", "podmonitors", any, "", ""},
		{"all", "dev", "shop", "podmonitors", any, "", "it looks for targets in all namespaces, and dev may not create podmonitors in all of them"},
		{"others where it may write too", "dev", "shop", "podmonitors", fmt.Sprintf(names, "shop"), "", ""},
		{"others", "dev", "shop", "podmonitors", fmt.Sprintf(names, "kube-system"), "", `in namespace "kube-system", and dev may not create podmonitors there`},
		{"Services of all", "dev", "shop", "servicemonitors", `{selector: {}, namespaceSelector: {any: true}, endpoints: [{port: m}]}`, "", "may not create servicemonitors"},
		{"all, from a namespace that is for all", "dev", "ops", "podmonitors", any, "", ""},
		{"all, from kube-system", "dev", "kube-system", "podmonitors", any, "", ""},
		{"a label of what somebody else wrote", "dev", "shop", "podmonitors", any, any, ""},
		{"a change to what somebody else wrote", "dev", "shop", "podmonitors", changed, any, "all namespaces"},
		{"pods of all, by discovery", "dev", "shop", "scrapeconfigs", `{kubernetesSDConfigs: [{role: Pod}]}`, "", "all namespaces, and dev may not create scrapeconfigs"},
		{"pods of another, by discovery", "dev", "shop", "scrapeconfigs", `{kubernetesSDConfigs: [{role: Pod, namespaces: {ownNamespace: true, names: [x]}}]}`, "", `namespace "x"`},
		{"its own pods, by discovery", "dev", "shop", "scrapeconfigs", `{kubernetesSDConfigs: [{role: Pod, namespaces: {ownNamespace: true}}]}`, "", ""},
		{"nodes, by discovery", "dev", "shop", "scrapeconfigs", `{kubernetesSDConfigs: [{role: Node}]}`, "", ""},
		{"a probe", "dev", "shop", "probes", `{targets: {staticConfig: {static: ["http://x"]}}}`, "", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			read := func(spec string) *unstructured.Unstructured {
				u := &unstructured.Unstructured{}
				if err := yaml.Unmarshal([]byte("metadata: {name: x, namespace: "+c.namespace+"}\nspec: "+spec), &u.Object); err != nil {
					t.Fatal(err)
				}
				return u
			}
			op, before := kadmission.Create, (*unstructured.Unstructured)(nil)
			if c.before != "" {
				op, before = kadmission.Update, read(c.before)
			}
			gvr := schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: c.resource}
			attrs := kadmission.NewAttributesRecord(read(c.spec), before, gvr.GroupVersion().WithKind("X"), c.namespace, "x", gvr, "", op, nil, false, &user.DefaultInfo{Name: c.user})
			err := monitors(t, "", "").Validate(t.Context(), attrs, nil)
			if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("said %v, want %q", err, c.wrong)
			}
		})
	}
}

type warnings []string

func (w *warnings) AddWarning(_, text string) { *w = append(*w, text) }

func TestBrokenMonitorsAreRefusedAndIdleFieldsAreTold(t *testing.T) {
	read := func(spec string) *unstructured.Unstructured {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte("metadata: {name: x, namespace: shop}\nspec: "+spec), &u.Object); err != nil {
			t.Fatal(err)
		}
		return u
	}
	const good, broken = `{selector: {}, endpoints: [{port: m}]}`, `{selector: {}, endpoints: [{port: m, relabelings: [{action: often}]}]}`
	for _, c := range []struct {
		what, resource, spec, before string
		wrong                        string
		told                         []string
	}{
		{"a good one", "servicemonitors", good, "", "", nil},
		{"a broken one", "servicemonitors", broken, "", `spec.endpoints[0].relabelings[0].action: "often" is not known`, nil},
		{"a broken one that stays what it was", "servicemonitors", broken, broken, "", nil},
		{"a good one that becomes broken", "servicemonitors", broken, good, "spec.endpoints[0]", nil},
		{"a field nobody knows", "podmonitors", `{selector: {}, podMetricsEndpoints: [{port: m, prot: x}], scrapeClass: c}`, "", "", []string{
			"spec.scrapeClass does nothing: there are no scrape classes", `unknown field "spec.podMetricsEndpoints[0].prot" does nothing`}},
		{"a probe", "probes", `{targets: {staticConfig: {static: []}}}`, "", "spec.targets.staticConfig.static: names no target", nil},
		{"a scrape configuration", "scrapeconfigs", `{staticConfigs: [{targets: ["localhost:1"]}]}`, "", "spec.staticConfigs[0].targets[0]", nil},
		{"routes of a namespace", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{urlSecret: {name: s, key: u}}]}]}`, "", "", nil},
		{"broken routes of a namespace", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{url: "http://a", colour: red}]}]}`, "", "spec.receivers[0].webhookConfigs[0].colour is not known", nil},
		{"a receiver on this machine", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a}, {name: b, webhookConfigs: [{url: "http://a"}, {url: "http://[::1]:2379/x"}]}]}`, "",
			`spec.receivers[1].webhookConfigs[1].url: receiver "b": [::1]:2379 is the machine`, nil},
		{"a receiver of the cloud's secrets", "alertmanagerconfigs", `{route: {receiver: a}, receivers: [{name: a, webhookConfigs: [{url: "http://100.100.100.200/"}]}]}`, "", `"a": 100.100.100.200:80 `, nil},
		{"a kind of others", "thanosrulers", `{x: 1}`, "", "", nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			var told warnings
			ctx := warning.WithWarningRecorder(context.Background(), &told)
			op, before := kadmission.Create, (*unstructured.Unstructured)(nil)
			if c.before != "" {
				op, before = kadmission.Update, read(c.before)
			}
			gvr := schema.GroupVersionResource{Group: "monitoring.coreos.com", Version: "v1", Resource: c.resource}
			attrs := kadmission.NewAttributesRecord(read(c.spec), before, gvr.GroupVersion().WithKind("X"), "shop", "x", gvr, "", op, nil, false, nil)
			err := monitors(t, "", "").Validate(ctx, attrs, nil)
			if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("said %v, want %q", err, c.wrong)
			}
			if !slices.Equal(told, warnings(c.told)) {
				t.Errorf("warned of %q, want %q", []string(told), c.told)
			}
		})
	}
}

func TestAReceiverMayNameWhatIsSetForAll(t *testing.T) {
	const global = "global: {slack_api_url: 'http://127.0.0.1:9093/all'}\nroute: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'http://127.0.0.1:9094/'}]}]\n"
	file := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(file, []byte(global), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, file, secret, url string
		good                    bool
	}{
		{"the same address", "", global, "http://127.0.0.1:9093/mine", true},
		{"the same address, in a file", file, "", "http://127.0.0.1:9093/mine", true},
		{"another port", "", global, "http://127.0.0.1:2379/", false},
		{"another name for it", "", global, "http://localhost:9093/", false},
		{"what one receiver of the cluster has", "", global, "http://127.0.0.1:9094/", false},
		{"no configuration", "", "", "http://127.0.0.1:9093/", false},
		{"a Secret that is not in force, because there is a file", file, "global: {slack_api_url: 'http://127.0.0.1:2379/'}\n" + route.Default, "http://127.0.0.1:2379/", false},
		{"a file that is gone", file + "-none", global, "http://127.0.0.1:9093/", false},
		{"a configuration that is broken", "", "global: {", "http://127.0.0.1:9093/", false},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "x", "namespace": "shop"}, "spec": map[string]any{
			"route": map[string]any{"receiver": "a"}, "receivers": []any{map[string]any{"name": "a", "slackConfigs": []any{
				map[string]any{"channel": "c", "apiURL": map[string]any{"name": "s", "key": "k"}, "httpConfig": map[string]any{"proxyURL": c.url}}, map[string]any{"channel": "c"}}}, map[string]any{"name": "b", "webhookConfigs": []any{map[string]any{"url": c.url}}}},
		}}}
		attrs := kadmission.NewAttributesRecord(u, nil, alertRoutes.GroupVersion().WithKind("AlertmanagerConfig"), "shop", "x", alertRoutes, "", kadmission.Create, nil, false, nil)
		err := monitors(t, c.file, c.secret).Validate(t.Context(), attrs, nil)
		if good := err == nil; good != c.good || err != nil && (!strings.Contains(err.Error(), `receiver "b"`) || !strings.Contains(err.Error(), "proxyURL")) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestAReceiverOwesWhatTheClusterHas(t *testing.T) {
	const smtp = "global: {smtp_smarthost: 'm.example:25', smtp_from: a@b.example, smtp_auth_username: u, smtp_auth_password: p}\n" + route.Default
	for global, say := range map[string]string{smtp: `receiver "a": email_configs[0] names its own smarthost and needs its own auth_password`, "": "", route.Default: ""} {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": "x", "namespace": "shop"}, "spec": map[string]any{
			"route":     map[string]any{"receiver": "a"},
			"receivers": []any{map[string]any{"name": "a", "emailConfigs": []any{map[string]any{"to": "a@b.example", "from": "a@b.example", "smarthost": "mail.shop.svc:25"}}}},
		}}}
		attrs := kadmission.NewAttributesRecord(u, nil, alertRoutes.GroupVersion().WithKind("AlertmanagerConfig"), "shop", "x", alertRoutes, "", kadmission.Create, nil, false, nil)
		if err := monitors(t, "", global).Validate(t.Context(), attrs, nil); (err == nil) != (say == "") || err != nil && !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v", global, err)
		}
	}
}
