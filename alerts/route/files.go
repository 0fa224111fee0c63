package route

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// httpSettings are what a namespace says of how its receivers connect, by their keys
// at any depth below http_config and tls_config. Every other key there is refused:
// whatever a newer library reads from somewhere else has to be let in here first.
var httpSettings = map[string]bool{
	"basic_auth": true, "username": true, "password": true,
	"authorization": true, "type": true, "credentials": true, "bearer_token": true,
	"oauth2": true, "client_id": true, "client_secret": true, "client_certificate_key_id": true, "client_certificate_key": true, "grant_type": true,
	"signature_algorithm": true, "iss": true, "audience": true, "claims": true, "scopes": true, "token_url": true, "endpoint_params": true,
	"tls_config": true, "ca": true, "cert": true, "key": true, "server_name": true, "insecure_skip_verify": true, "min_version": true, "max_version": true,
	"proxy_url": true, "no_proxy": true, "proxy_from_environment": true, "proxy_connect_header": true,
	"follow_redirects": true, "enable_http2": true,
	"http_headers": true, "values": true, "secrets": true,
}

// ownKeys are the settings whose keys are their author's, not the library's.
var ownKeys = map[string]bool{"claims": true, "endpoint_params": true, "proxy_connect_header": true, "labels": true, "details": true, "headers": true,
	"fields": true, "custom_fields": true, "attributes": true, "tags": true}

// serverSetting is the first key in a tree that has the server read a file of its own,
// or might: whoever writes it may not read what the server does.
func serverSetting(n *yaml.Node) string {
	if n.Kind != yaml.MappingNode {
		return within(n, serverSetting)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		found := ""
		switch {
		case strings.HasSuffix(key, "_file"), strings.HasSuffix(key, "_files"):
			found = key
		case key == "http_config", key == "tls_config":
			found = beyond(value)
		case ownKeys[key] && value.Kind == yaml.MappingNode: // a detail may be called log_file
		default:
			found = serverSetting(value)
		}
		if found != "" {
			return found
		}
	}
	return ""
}

// within is the first that find finds in what a document or list holds.
func within(n *yaml.Node, find func(*yaml.Node) string) string {
	for _, c := range n.Content {
		if found := find(c); found != "" {
			return found
		}
	}
	return ""
}

// beyond is the first key below http_config that is none of httpSettings.
func beyond(n *yaml.Node) string {
	if n.Kind != yaml.MappingNode {
		return within(n, beyond)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		switch {
		case !httpSettings[key]:
			return key
		case key == "http_headers":
			for j := 1; j < len(value.Content); j += 2 {
				if found := beyond(value.Content[j]); found != "" {
					return "http_headers." + value.Content[j-1].Value + "." + found
				}
			}
		case ownKeys[key]:
		default:
			if found := beyond(value); found != "" {
				return found
			}
		}
	}
	return ""
}
