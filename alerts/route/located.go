package route

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Located returns a configuration that says in full where its files are. As in
// Alertmanager the paths of templates and of fields that end in _file are relative
// to dir, where the configuration is; without one they are refused. A comment at
// the end is another one when a template changes. What is no YAML stays as it is:
// Check tells.
func Located(text, dir string) (string, error) {
	var root yaml.Node
	if yaml.Unmarshal([]byte(text), &root) != nil {
		return text, nil
	}
	var relative, templates []*yaml.Node
	paths(&root, func(n *yaml.Node, template bool) {
		if n.Value != "" && !filepath.IsAbs(n.Value) {
			relative = append(relative, n)
		}
		if template {
			templates = append(templates, n)
		}
	})
	for _, n := range relative {
		if dir == "" {
			return "", fmt.Errorf("line %d: %s is a relative path, and this configuration is in no directory: write the whole path", n.Line, n.Value)
		}
		n.Value = filepath.Join(dir, n.Value)
	}
	if len(relative) > 0 {
		out, err := yaml.Marshal(&root)
		if err != nil {
			return "", fmt.Errorf("write Alertmanager configuration: %w", err)
		}
		text = string(out)
	}
	if len(templates) == 0 {
		return text, nil
	}
	sum := crc32.NewIEEE()
	for _, n := range templates {
		files, err := filepath.Glob(n.Value)
		if err != nil {
			return "", fmt.Errorf("line %d: find templates %s: %w", n.Line, n.Value, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", fmt.Errorf("read template: %w", err)
			}
			fmt.Fprintf(sum, "%s %d %s", file, len(b), b) // a hash takes everything
		}
	}
	return fmt.Sprintf("%s\n# templates: %08x\n", strings.TrimRight(text, "\n"), sum.Sum32()), nil
}

// paths calls found for each place of a file.
func paths(n *yaml.Node, found func(n *yaml.Node, template bool)) {
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			paths(c, found)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key, value := n.Content[i].Value, n.Content[i+1]; {
		case strings.HasSuffix(key, "_file") && value.Kind == yaml.ScalarNode:
			found(value, false)
		case key == "templates" && value.Kind == yaml.SequenceNode:
			for _, c := range value.Content {
				found(c, true)
			}
		default:
			paths(value, found)
		}
	}
}
