package target

import "testing"

func TestWhatOnlyThisMachineMayReachIsGuarded(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "127.8.8.8": true, "[::1]:80": true, "::1": true, "[::ffff:127.0.0.1]:9": true, "0.0.0.0:1": true, "[::]:1": true,
		"169.254.169.254": true, "[fe80::1%eth0]:80": true, "[::ffff:169.254.169.254]:80": true,
		"[fd00:ec2::254]:80": true, "fd20:ce::254": true, "100.100.100.200:80": true, "168.63.129.16": true, "[::ffff:168.63.129.16]:32526": true, "192.0.0.192": true,
		"localhost": true, "LocalHost.:80": true, "a.localhost:80": true,
		"100.100.100.201": false, "168.63.129.17:80": false, "10.0.0.1:80": false, "[fd00:ec2::253]:80": false, "192.168.1.1": false,
		"hook.shop.svc:80": false, "localhost.example": false, "mylocalhost": false, "": true, ":80": true, // as net.Dial has it
	} {
		if got := GuardedAddress(address); got != want {
			t.Errorf("%q: %v, want %v", address, got, want)
		}
	}
}
