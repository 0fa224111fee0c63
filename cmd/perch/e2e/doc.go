// Package e2e runs bin/perch as users do: one cluster with real containers is
// started, each scenario in ../testdata/*.txtar gets a namespace of its own,
// and `perch down` must leave nothing behind on the machine.
//
// It needs root and the environment variable PERCH (path of the binary).
// Start reading at TestScenarios; the words scenarios use beside testscript's
// are in words_test.go.
package e2e
