package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"perch/alerts/route"
	"perch/alerts/rule"
	"perch/cmd/perch/daemon/config"
	"perch/metrics/remote"
	"perch/metrics/scrape"
)

// givenFile is a file or directory that a flag names.
type givenFile struct {
	flag  string
	path  *string
	check func(path string) error // nil: that it is there is enough
}

func filesOf(cfg *config.Config) []givenFile {
	return []givenFile{
		{"scrape-config", &cfg.ScrapeConfig, scrape.Check},
		{"alert-config", &cfg.AlertConfig, textOf(route.Check)},
		{"remote-write", &cfg.RemoteWrite, textOf(remote.Check)},
		{"rules-dir", &cfg.RulesDir, checkRulesDir},
		{"forward-keys", &cfg.ForwardKeys, nil},
		{"forward-tls-cert", &cfg.ForwardTLSCert, nil},
		{"forward-tls-key", &cfg.ForwardTLSKey, nil},
		{"forward-to-key", &cfg.ForwardToKey, nil},
		{"forward-to-ca", &cfg.ForwardToCA, nil},
	}
}

// givenFiles makes the paths among flags absolute, because roles have a working
// directory of their own, and refuses a file that is not there or would not be in
// force. Only who gives a flag now is refused: what was remembered may have broken
// since, and a machine that starts again goes on with all else.
func givenFiles(cfg *config.Config, flags *pflag.FlagSet) error {
	var errs []error
	if flags.Changed("join-token-file") {
		cfg.JoinTokenFile = absolute(cfg.JoinTokenFile)
	}
	for _, f := range filesOf(cfg) {
		if !flags.Changed(f.flag) || *f.path == "" {
			continue
		}
		*f.path = absolute(*f.path)
		_, err := os.Stat(*f.path)
		if err == nil && f.check != nil {
			err = f.check(*f.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s: %w", f.flag, err))
		}
	}
	return errors.Join(errs...)
}

func absolute(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		return whole
	}
	return path // no working directory: what opens it says so
}

func textOf(check func(string) error) func(string) error {
	return func(path string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err // names the file
		}
		if err := check(string(text)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	}
}

// checkRulesDir names every rule of a directory that would not be in force.
func checkRulesDir(dir string) error {
	files, err := rule.FromDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		for _, p := range rule.Check(f) {
			errs = append(errs, errors.New(p.String()))
		}
	}
	return errors.Join(errs...)
}
