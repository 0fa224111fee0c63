package image

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// entry is one login of a Docker configuration.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"` // base64 of user:password
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// credential is a login with the pattern of the images it is for.
type credential struct {
	host, path string // host may hold * in a label; path is a prefix
	auth       *cri.AuthConfig
}

// Credentials finds the logins for an image (normalized) among pull secrets,
// best match first: a longer pattern goes before a shorter one. A secret that
// cannot be read is skipped and named in problems. The matching follows
// Kubernetes: a pattern is HOST[:PORT][/PATH], with or without https://; a *
// in the host stands for a whole part of a name between dots, or a piece of
// one; ports must be equal; the path is a prefix.
func Credentials(image string, secrets []corev1.Secret) (found []*cri.AuthConfig, problems []error) {
	var all []credential
	for _, s := range secrets {
		got, err := read(s)
		if err != nil {
			problems = append(problems, fmt.Errorf("read pull secret %s/%s: %w", s.Namespace, s.Name, err))
		}
		all = append(all, got...)
	}
	slices.SortStableFunc(all, func(a, b credential) int {
		return cmp.Compare(b.host+b.path, a.host+a.path)
	})
	for _, c := range all {
		if c.matches(image) {
			found = append(found, c.auth)
		}
	}
	return found, problems
}

func read(s corev1.Secret) ([]credential, error) {
	entries := map[string]entry{}
	switch {
	case s.Type == corev1.SecretTypeDockerConfigJson || s.Data[corev1.DockerConfigJsonKey] != nil:
		var file struct {
			Auths map[string]entry `json:"auths"`
		}
		if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, errUnreadable(err)
		}
		entries = file.Auths
	case s.Type == corev1.SecretTypeDockercfg || s.Data[corev1.DockerConfigKey] != nil:
		if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, errUnreadable(err)
		}
	default:
		return nil, fmt.Errorf("type %q holds no registry login", s.Type)
	}
	var out []credential
	for where, e := range entries {
		c, err := parsePattern(where)
		if err != nil {
			return out, err
		}
		c.auth = &cri.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
		if e.Username == "" && e.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !ok {
				return out, fmt.Errorf("auth of %s is not base64 of user:password", where)
			}
			c.auth.Username, c.auth.Password = user, password
		}
		out = append(out, c)
	}
	return out, nil
}

// errUnreadable keeps the content of a secret out of the message.
func errUnreadable(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not JSON at byte %d", syntax.Offset)
	}
	return errors.New("not a Docker configuration")
}

func parsePattern(where string) (credential, error) {
	text := where
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return credential{}, fmt.Errorf("%q is no registry", where)
	}
	p := u.Path
	if strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, "/v2/") {
		p = p[len("/v1"):] // Docker writes a registry with the path of its API
	}
	if p == "/" {
		p = ""
	}
	return credential{host: hub(u.Host), path: p}, nil
}

// hub gives the many names of Docker's registry one name.
func hub(host string) string {
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return "docker.io"
	}
	return host
}

func (c credential) matches(image string) bool {
	host, rest, ok := strings.Cut(image, "/")
	if !ok {
		return false
	}
	wantHost, wantPort := splitPort(c.host)
	haveHost, havePort := splitPort(hub(host))
	if wantPort != havePort {
		return false
	}
	want, have := strings.Split(wantHost, "."), strings.Split(haveHost, ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if ok, err := path.Match(want[i], have[i]); err != nil || !ok {
			return false
		}
	}
	return strings.HasPrefix("/"+rest, c.path)
}

func splitPort(host string) (name, port string) {
	name, port, _ = strings.Cut(host, ":")
	return name, port
}
