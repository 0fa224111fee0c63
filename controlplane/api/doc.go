// Package api names what the cluster consists of: the table of kinds, object
// keys, and the labels and annotations perch itself uses.
//
// It is a leaf: agent, command line and control plane import it, it imports
// nothing of perch and no Kubernetes types beyond names. It decides nothing
// and keeps no state.
//
//	api.Kinds()                      every served kind, one row each
//	api.ByResource(gvr)              the row of a resource
//	api.KeyOf(pod)                   "namespace/name"
//
// To add a kind, add its row in kinds.go, its validation in api/legal and, when
// it should look good in kubectl, its columns in controlplane/apiserver.
//
// Start reading at Kinds in kinds.go.
package api
