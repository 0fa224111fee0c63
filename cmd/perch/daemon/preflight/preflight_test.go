package preflight

import (
	"net"
	"strings"
	"testing"
)

func TestAPortInUseIsNamedWithItsFlag(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = ports(map[string]int{"web-port": l.Addr().(*net.TCPAddr).Port})
	if err == nil || !strings.Contains(err.Error(), "--web-port") {
		t.Fatalf("got %v", err)
	}
}

func TestASecondHolderOfTheLockIsRefusedWithTheFirstOnesPid(t *testing.T) {
	dir := t.TempDir()
	first, err := TakeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeLock(dir); err == nil || !strings.Contains(err.Error(), "already runs on") {
		t.Fatalf("got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := TakeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestANameInUseIsRefusedUntilItsHolderEnds(t *testing.T) {
	dir := t.TempDir() + "/perch-a"
	first, err := TakeName("a", dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeName("a", dir); err == nil || !strings.Contains(err.Error(), "give another --name") {
		t.Fatalf("got %v", err)
	}
	first.Close()
	again, err := TakeName("a", dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
