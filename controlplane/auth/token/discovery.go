package token

import (
	"encoding/json"
	"net/http"

	jose "github.com/go-jose/go-jose/v4"
)

// Paths of the OIDC discovery documents on the API server.
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeysPath          = "/openid/v1/jwks"
)

// Configuration serves the OpenID configuration; others verify our tokens with
// it. server is the API's own URL, under which they find the keys.
func (i *Issuer) Configuration(server string) http.Handler {
	return document("application/json", map[string]any{
		"issuer":                                i.url,
		"jwks_uri":                              server + KeysPath,
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{string(jose.ES256)},
	})
}

// Keys serves the public key that our tokens are signed with.
func (i *Issuer) Keys() http.Handler {
	return document("application/jwk-set+json", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
		Key: i.public, KeyID: i.keyID, Algorithm: string(jose.ES256), Use: "sig",
	}}})
}

func document(kind string, content any) http.Handler {
	body, err := json.Marshal(content)
	if err != nil {
		panic("BUG: discovery document cannot be encoded: " + err.Error())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only GET is known here", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(body) // the reader may have gone away
	})
}
