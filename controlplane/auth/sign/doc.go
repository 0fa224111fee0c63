// Package sign owns certificate signing requests: it approves those of nodes,
// signs what is approved, and spends join tokens. It is the only writer of a
// CSR's conditions and certificate beside people who approve by hand.
//
//	kubernetes.io/kube-apiserver-client-kubelet  a node's client certificate: approved for
//	    the holder of a join token (once) and for the node itself
//	kubernetes.io/kubelet-serving                a node's server certificate: approved for
//	    the node itself, with names and addresses that are nobody else's
//	kubernetes.io/kube-apiserver-client          anybody's client certificate: a person approves
//
// Other signers belong to others. A refused request carries the reason as its
// condition Denied, so that the joining machine can show it.
//
//	sign.New(sign.Default(), client, informers, authority, log, reg).Run(ctx)
//
// Start reading at Decide in decide.go; run.go acts.
package sign
