// Package quiet proves what perch promises about its first minutes: on a fresh
// cluster with a healthy application no alert fires but the dead-man switch, and
// every panel of every shipped dashboard has data.
//
// It has a cluster of its own and runs beside the scenarios. It needs root and
// the environment variable PERCH (path of the binary). Start reading at
// TestAHealthyClusterIsQuiet.
package quiet
