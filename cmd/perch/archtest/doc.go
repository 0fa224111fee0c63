// Package archtest holds the tests of the architecture: who may import whom,
// what may not be written where. Start reading at rules in arch_test.go.
package archtest
