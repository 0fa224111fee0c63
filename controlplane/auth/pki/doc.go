// Package pki owns the cluster's certificate authority, the key pairs issued
// by it, the key that signs ServiceAccount tokens, kubeconfig files, and the
// text of join tokens. It uses the standard library only, because the command
// line and a node that has not joined yet use it too.
//
// It never talks to the API server and starts no goroutine; FetchCA is the only
// function that opens a connection. Every private file is written whole or not
// at all, with mode 0600.
//
// Safe for use by several goroutines; one process at a time owns a directory.
//
// Files of a directory: ca.crt ca.key, <name>.crt <name>.key, service-account.key.
//
//	authority, err := pki.Open(dir, now)            create or load the CA
//	pair, err := authority.Ensure(now, "server", r) load, or issue when due
//	config := pki.Kubeconfig(url, ca, cert, key)    embedded data
//	token, err := pki.ParseJoin(text)               what a worker was given
//	ca, err := pki.FetchCA(ctx, addr, token.Pin)    trust by pin, not by faith
//
// Start reading at Open in authority.go.
package pki
