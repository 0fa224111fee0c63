// Package cli holds perch's own words on the command line beside those of
// kubectl, which is embedded whole.
//
// It talks HTTP like any user: to the API server by the kubeconfig, to the web
// door (logs, metrics, alerts) by the address in ConfigMap kube-public/perch-info,
// with the same credentials. It never reads a data directory.
//
// Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed,
// 2 wrong usage. Start reading at Commands in cli.go.
package cli
