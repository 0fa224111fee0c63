package door

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
)

func TestOnlyServiceAccountsPushWithoutARight(t *testing.T) {
	for name, want := range map[string]string{
		"system:serviceaccount:shop:default": "shop", "system:serviceaccount:shop": "", "system:serviceaccount": "", "shop:default": "", "system:node:n1": "",
	} {
		if ns, _, ok := ServiceAccount(User{Name: name}); ok != (want != "") || ok && ns != want {
			t.Errorf("%s is of namespace %q: %v", name, ns, ok)
		}
	}
	d, _ := open(t)
	for name, want := range map[string]bool{"system:serviceaccount:shop:default": true, "dev": false} {
		if _, err := Push("/loki/api/v1/push")(d, context.Background(), User{Name: name}); (err == nil) != want {
			t.Errorf("%s may push: %v", name, err)
		}
	}
}

func TestANamespaceIsChosenByWhoMayWriteLogsThere(t *testing.T) {
	d, _ := open(t)
	for _, c := range []struct {
		user, into, want string
	}{
		{"dev", "shop", ""},
		{"dev", "bank", "may not create pods/log in namespace bank"},
		{"system:serviceaccount:shop:default", "bank", "may not create pods/log in namespace bank"},
		{"root", "bank", ""},
		{"root", "_host", ""},
		{"root", "bnak", "there is no namespace bnak"},
	} {
		u := User{Name: c.user}
		if c.user == "root" {
			u.Groups = []string{"system:masters"}
		}
		_, err := Push("/loki/api/v1/push")(d, context.WithValue(t.Context(), intoKey{}, c.into), u)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s into %s: %v, want %q", c.user, c.into, err, c.want)
		}
	}
}

func TestATokenMayComeAsThePasswordOfBasic(t *testing.T) {
	d, _ := open(t)
	for token, want := range map[string]int{"root": 200, "wrong": 401, "": 401} {
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+token))
		if r := ask(d, "GET", "/stream", "", "Authorization", basic); r.StatusCode != want {
			t.Errorf("%q: %s, want %d", token, r.Status, want)
		}
	}
}
