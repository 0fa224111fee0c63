package pki

import (
	"encoding/base64"
	"fmt"
)

// Kubeconfig is a client configuration with everything inside it: server is the
// API's URL, the rest is PEM. Without a key the user part is left empty, for a
// configuration that only knows whom to trust.
func Kubeconfig(server string, ca, cert, key []byte) []byte {
	user := "{}"
	if len(key) > 0 {
		user = fmt.Sprintf("\n    client-certificate-data: %s\n    client-key-data: %s",
			base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key))
	} else {
		user = " " + user
	}
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: perch
  cluster:
    server: %q
    certificate-authority-data: %s
users:
- name: perch
  user:%s
contexts:
- name: perch
  context:
    cluster: perch
    user: perch
current-context: perch
`, server, base64.StdEncoding.EncodeToString(ca), user)
}
