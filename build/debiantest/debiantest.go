// Package debiantest gives tests the tools that people and scripts drive perch
// with or used before it, as Debian has them: amtool, promtool, prometheus-node-exporter
// and prometheus-blackbox-exporter, a few years older than what perch is built of.
// build/promtools.sh fetches them once for all packages.
//
// Start reading at Tool.
package debiantest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Tool is the path of one of them. Where it is not there and cannot be
// fetched the test fails and says what to do: what nobody has tried is not known to
// work.
func Tool(t testing.TB, name string) string {
	t.Helper()
	root, err := root()
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	path, err := fetch(filepath.Join(root, "build", "promtools.sh"), filepath.Join(root, "out", "promtools"), name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// fetch lets script bring the tools into dir.
func fetch(script, dir, name string) (string, error) {
	if out, err := exec.Command(script, dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	return path, nil
}

// root is the directory of the module: a test runs in that of its package.
func root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod in the working directory or above: run the tests in perch's tree")
		}
		dir = filepath.Dir(dir)
	}
}
