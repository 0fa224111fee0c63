package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls are the machine-wide settings that pods need, each with its value.
var sysctls = map[string]string{
	"net/ipv4/ip_forward": "1",
	// The kernel takes "all" or the link's own value; with "all" off, only pods'
	// links, where the plugin turns it off as well, change their behaviour.
	"net/ipv4/conf/all/send_redirects": "0",
}

// state remembers what Cleanup needs. It is written before the first change.
type state struct {
	PodCIDR     string            `json:"podCIDR"`
	ClusterCIDR string            `json:"clusterCIDR"`
	ServiceCIDR string            `json:"serviceCIDR"`
	Sysctls     map[string]string `json:"sysctls"` // values before perch
}

func statePath(dir string) string { return filepath.Join(dir, "network.json") }

func readState(dir string) (state, error) {
	s := state{Sysctls: map[string]string{}}
	text, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read network state: %w", err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read network state %s: %w", statePath(dir), err)
	}
	if s.Sysctls == nil {
		s.Sysctls = map[string]string{}
	}
	return s, nil
}

// writeAtomically replaces a file as a whole; readers see the old or the new
// content. An unchanged file is left alone, because the runtime watches it.
func writeAtomically(path string, text []byte) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == string(text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the first error counts
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// remember stores the CIDRs and the sysctls' values from before perch, and then sets them.
func remember(cfg Config, podCIDR string) error {
	s, err := readState(cfg.Dir)
	if err != nil {
		return err
	}
	s.PodCIDR, s.ClusterCIDR, s.ServiceCIDR = podCIDR, cfg.ClusterCIDR.String(), cfg.ServiceCIDR.String()
	have := map[string]string{}
	for name := range sysctls {
		value, err := os.ReadFile("/proc/sys/" + name)
		if err != nil {
			return fmt.Errorf("read sysctl %s: %w", name, err)
		}
		have[name] = strings.TrimSpace(string(value))
		if _, known := s.Sysctls[name]; !known {
			s.Sysctls[name] = have[name]
		}
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network state: %w", err)
	}
	if err := writeAtomically(statePath(cfg.Dir), append(text, '\n')); err != nil {
		return err
	}
	for name, want := range sysctls {
		if have[name] == want {
			continue
		}
		if err := setSysctl(name, want); err != nil {
			return err
		}
	}
	return nil
}

func setSysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}
