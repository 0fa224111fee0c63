package api

import "testing"

func TestEveryRowOfTheTableIsUnique(t *testing.T) {
	kinds, resources := map[any]bool{}, map[any]bool{}
	for _, k := range Kinds() {
		if kinds[k.GVK()] || resources[k.GVR()] {
			t.Errorf("%s appears twice", k.GVK())
		}
		kinds[k.GVK()], resources[k.GVR()] = true, true
		if k.Version == "" || k.Kind == "" || k.Plural == "" {
			t.Errorf("row %+v is incomplete", k)
		}
		if have, ok := ByResource(k.GVR()); !ok || have.Kind != k.Kind {
			t.Errorf("ByResource does not find %s", k.GVR())
		}
	}
}

func TestKeysReadBackWhatTheyPrint(t *testing.T) {
	for _, k := range []Key{{"default", "web"}, {"", "node-1"}} {
		if have, err := ParseKey(k.String()); err != nil || have != k {
			t.Errorf("%q reads back as %v, %v", k, have, err)
		}
	}
	for _, bad := range []string{"", "/", "a/", "/b", "a/b/c"} {
		if k, err := ParseKey(bad); err == nil {
			t.Errorf("%q was read as %v", bad, k)
		}
	}
}
