package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/yaml"

	"perch/alerts/rule"
	"perch/cmd/perch/cli"
)

// ruleTools joins the words about rules with the package that knows them.
func ruleTools() cli.RuleTools {
	return cli.RuleTools{
		Check: func(file string) ([]string, error) {
			s, err := ruleSource(file)
			if err != nil {
				return nil, err
			}
			var out []string
			for _, p := range rule.Check(s) {
				out = append(out, p.String())
			}
			return out, nil
		},
		Test: func(file string) ([]cli.RuleTest, error) {
			results, err := rule.Test(file)
			out := make([]cli.RuleTest, len(results))
			for i, r := range results {
				out[i] = cli.RuleTest{Name: r.Name, Failures: r.Failures}
			}
			return out, err
		},
		Alerts: func(file string) ([]cli.AlertRule, error) {
			s, err := ruleSource(file)
			if err != nil {
				return nil, err
			}
			all, bad := rule.Alerts(s)
			var errs []error
			for _, p := range bad {
				errs = append(errs, errors.New(p.String()))
			}
			var out []cli.AlertRule
			for _, r := range all {
				out = append(out, cli.AlertRule{Group: r.Group, Name: r.Name, Expr: r.Past, Recorded: r.Recorded, For: r.For, KeepFiring: r.KeepFiring})
			}
			return out, errors.Join(errs...)
		},
		Fired: func(truths []time.Time, past cli.Past) []cli.Firing {
			var out []cli.Firing
			for _, f := range rule.Fired(truths, rule.Timing{Step: past.Step, For: past.For, KeepFiring: past.KeepFiring, EvaluatedTo: past.To}) {
				out = append(out, cli.Firing(f))
			}
			return out
		},
	}
}

// ruleSource reads a rule file, or the rules in a PrometheusRule manifest.
func ruleSource(file string) (rule.Source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return rule.Source{}, fmt.Errorf("read rules: %w", err)
	}
	var object struct {
		Kind string         `json:"kind"`
		Spec map[string]any `json:"spec"`
	}
	if yaml.Unmarshal(text, &object) == nil && object.Kind == "PrometheusRule" {
		if text, err = yaml.Marshal(object.Spec); err != nil {
			return rule.Source{}, fmt.Errorf("read rules of %s: %w", file, err)
		}
	}
	return rule.Source{Name: file, Text: string(text)}, nil
}
