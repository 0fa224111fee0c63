package pod

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Sources are the objects a container's environment may take values from. An
// object that does not exist is nil without an error; an error means that it
// is not known now.
type Sources struct {
	ConfigMap func(name string) (*corev1.ConfigMap, error)
	Secret    func(name string) (*corev1.Secret, error)
	Services  []*corev1.Service // of the pod's namespace, and default/kubernetes
}

// Variable is one variable of a container's environment.
type Variable struct{ Name, Value string }

// Env returns the environment of a container: variables of services, envFrom,
// env, each overriding the ones before, with $(NAME) expanded in env.
func Env(pod *corev1.Pod, c *corev1.Container, facts Facts, from Sources) ([]Variable, error) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	for _, e := range serviceEnv(pod.Namespace, links, from.Services) {
		set(e.Name, e.Value)
	}
	for i := range c.EnvFrom {
		if err := envFrom(&c.EnvFrom[i], from, set); err != nil {
			return nil, err
		}
	}
	for i := range c.Env {
		e := &c.Env[i]
		value, ok, err := envValue(pod, c, e, facts, from)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if e.ValueFrom == nil {
			value = Expand(value, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		}
		set(e.Name, value)
	}
	out := make([]Variable, 0, len(order))
	for _, name := range order {
		out = append(out, Variable{name, values[name]})
	}
	return out, nil
}

func envFrom(e *corev1.EnvFromSource, from Sources, set func(name, value string)) error {
	switch {
	case e.ConfigMapRef != nil:
		cm, err := from.ConfigMap(e.ConfigMapRef.Name)
		if err != nil {
			return err
		}
		if cm == nil && !isTrue(e.ConfigMapRef.Optional) {
			return fmt.Errorf("configmap %q not found", e.ConfigMapRef.Name)
		}
		if cm != nil {
			for _, k := range sortedKeys(cm.Data) {
				set(e.Prefix+k, cm.Data[k])
			}
		}
	case e.SecretRef != nil:
		secret, err := from.Secret(e.SecretRef.Name)
		if err != nil {
			return err
		}
		if secret == nil && !isTrue(e.SecretRef.Optional) {
			return fmt.Errorf("secret %q not found", e.SecretRef.Name)
		}
		if secret != nil {
			for _, k := range sortedKeys(secret.Data) {
				set(e.Prefix+k, string(secret.Data[k]))
			}
		}
	}
	return nil
}

// envValue returns the value of one variable, and false if an optional source
// does not have it.
func envValue(pod *corev1.Pod, c *corev1.Container, e *corev1.EnvVar, facts Facts, from Sources) (string, bool, error) {
	src := e.ValueFrom
	switch {
	case src == nil:
		return e.Value, true, nil
	case src.FieldRef != nil:
		v, err := Field(pod, src.FieldRef.FieldPath, facts)
		return v, true, err
	case src.ResourceFieldRef != nil:
		v, err := Resource(pod, c.Name, src.ResourceFieldRef, facts.Node)
		return v, true, err
	case src.ConfigMapKeyRef != nil:
		ref := src.ConfigMapKeyRef
		cm, err := from.ConfigMap(ref.Name)
		if err != nil {
			return "", false, err
		}
		if cm != nil {
			if v, ok := cm.Data[ref.Key]; ok {
				return v, true, nil
			}
		}
		return "", false, missing("configmap", ref.Name, ref.Key, cm != nil, isTrue(ref.Optional))
	case src.SecretKeyRef != nil:
		ref := src.SecretKeyRef
		secret, err := from.Secret(ref.Name)
		if err != nil {
			return "", false, err
		}
		if secret != nil {
			if v, ok := secret.Data[ref.Key]; ok {
				return string(v), true, nil
			}
		}
		return "", false, missing("secret", ref.Name, ref.Key, secret != nil, isTrue(ref.Optional))
	}
	return "", false, fmt.Errorf("variable %s has a source that is not supported", e.Name)
}

func missing(kind, name, key string, exists, optional bool) error {
	switch {
	case optional:
		return nil
	case !exists:
		return fmt.Errorf("%s %q not found", kind, name)
	}
	return fmt.Errorf("couldn't find key %s in %s %s", key, kind, name)
}

// serviceEnv are the variables that name the services a pod may talk to.
func serviceEnv(namespace string, links bool, services []*corev1.Service) []Variable {
	var out []Variable
	add := func(k, v string) { out = append(out, Variable{k, v}) }
	chosen := map[string]*corev1.Service{}
	for _, s := range services {
		ip := s.Spec.ClusterIP
		if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		kubernetes := s.Namespace == "default" && s.Name == "kubernetes"
		switch {
		case links && s.Namespace == namespace:
			chosen[s.Name] = s
		case kubernetes && chosen[s.Name] == nil:
			chosen[s.Name] = s
		}
	}
	for _, name := range sortedKeys(chosen) {
		s := chosen[name]
		upper := strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		add(upper+"_SERVICE_HOST", s.Spec.ClusterIP)
		add(upper+"_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port)))
		for _, p := range s.Spec.Ports {
			if p.Name != "" {
				add(upper+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), strconv.Itoa(int(p.Port)))
			}
		}
		for i, p := range s.Spec.Ports {
			protocol := strings.ToLower(cmpProtocol(p.Protocol))
			url := protocol + "://" + net.JoinHostPort(s.Spec.ClusterIP, strconv.Itoa(int(p.Port)))
			if i == 0 {
				add(upper+"_PORT", url)
			}
			prefix := fmt.Sprintf("%s_PORT_%d_%s", upper, p.Port, strings.ToUpper(protocol))
			add(prefix, url)
			add(prefix+"_PROTO", protocol)
			add(prefix+"_PORT", strconv.Itoa(int(p.Port)))
			add(prefix+"_ADDR", s.Spec.ClusterIP)
		}
	}
	return out
}

func cmpProtocol(p corev1.Protocol) string {
	if p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p)
}

// Expand replaces $(NAME) by the value lookup gives; unknown names stay as they
// are, and $$ is a dollar.
func Expand(text string, lookup func(name string) (string, bool)) string {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i+1 == len(text) {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:i])
		switch rest := text[i+1:]; rest[0] {
		case '$':
			out.WriteByte('$')
			text = rest[1:]
		case '(':
			end := strings.IndexByte(rest, ')')
			if end < 0 {
				out.WriteString("$(")
				text = rest[1:]
				continue
			}
			name := rest[1:end]
			if v, ok := lookup(name); ok {
				out.WriteString(v)
			} else {
				out.WriteString("$(" + name + ")")
			}
			text = rest[end+1:]
		default:
			out.WriteString(text[i : i+2])
			text = rest[1:]
		}
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
