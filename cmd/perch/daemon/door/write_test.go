package door

import (
	"context"
	"strings"
	"testing"
)

func TestWhoMayWriteIntoOneNamespaceWritesIntoNoOther(t *testing.T) {
	d, _ := open(t)
	for _, c := range []struct {
		about, user, names string
		all                bool
		into, refused      string
	}{
		{"an administrator", "root", "", true, "", ""},
		{"an administrator who names one", "root", "shop", false, "shop", ""},
		{"a service account", "system:serviceaccount:shop:default", "", false, "shop", ""},
		{"a service account that names another", "system:serviceaccount:shop:default", "bank", false, "", "may not create pods/log in namespace bank"},
		{"who may write logs there", "dev", "shop", false, "shop", ""},
		{"who names none", "dev", "", false, "", "names it in the header Perch-Namespace"},
		{"who may not write logs there", "dev", "bank", false, "", "may not create pods/log in namespace bank"},
	} {
		t.Run(c.about, func(t *testing.T) {
			u := User{Name: c.user}
			if c.user == "root" {
				u.Groups = []string{"system:masters"}
			}
			ctx := t.Context()
			if c.names != "" {
				ctx = context.WithValue(ctx, intoKey{}, c.names)
			}
			got, err := Write("/prometheus/api/v1/write")(d, ctx, u)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %q", err, c.refused)
				}
				return
			}
			if err != nil || ScopeOf(got).All != c.all || Into(got) != c.into {
				t.Errorf("all %v, into %q, %v", ScopeOf(got).All, Into(got), err)
			}
		})
	}
}
