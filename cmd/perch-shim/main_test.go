package main

import "testing"

func TestWhoIsCalled(t *testing.T) {
	for _, c := range []struct {
		does string
		args []string
		cni  string
		want bool
	}{
		{"the name of the hard link chooses the network plugin", []string{"/d/bin/x/perch-cni"}, "ADD", true},
		{"a probe of the plugin's version is for the plugin", []string{"/d/bin/x/perch-cni"}, "VERSION", true},
		{"an order without arguments is for the network plugin", []string{"perch-shim"}, "DEL", true},
		{"the start of a shim is for the shim", []string{"perch-shim", "-namespace", "k8s.io", "-id", "a", "start"}, "", false},
		{"a shim that inherits a plugin's environment stays a shim", []string{"perch-shim", "-namespace", "k8s.io", "-id", "a"}, "ADD", false},
		{"the question for the shim's options is for the shim", []string{"perch-shim", "-info"}, "", false},
	} {
		t.Run(c.does, func(t *testing.T) {
			if have := isCNI(c.args, func(string) string { return c.cni }); have != c.want {
				t.Errorf("isCNI(%q) = %v, want %v", c.args, have, c.want)
			}
		})
	}
}
