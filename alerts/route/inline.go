package route

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxRead bounds a file that is handed on; there are passwords, URLs and certificates
// in them.
const maxRead = 256 << 10

// inline puts what files say in the places of their names, at any depth: another
// machine has not these files. Alertmanager names the setting that a file stands for
// by the same word without _file.
func inline(v any) error {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if err := inline(x); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			stem, isFile := strings.CutSuffix(key, "_file")
			path, isText := v[key].(string)
			switch {
			case ownKeys[key]:
			case key == "http_headers":
				if err := inlineHeaders(v[key]); err != nil {
					return err
				}
			case isFile && isText && path != "":
				text, err := readSetting(key, path)
				if err != nil {
					return err
				}
				delete(v, key)
				if v[stem] = text; stem == "chat_id" {
					if v[stem], err = strconv.ParseInt(text, 10, 64); err != nil {
						return fmt.Errorf("read %s: %w", key, err)
					}
				}
			default:
				if err := inline(v[key]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// inlineHeaders makes secrets of the values that are in files.
func inlineHeaders(v any) error {
	headers, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		h, _ := headers[name].(map[string]any)
		files, _ := h["files"].([]any)
		secrets, _ := h["secrets"].([]any)
		for _, f := range files {
			path, _ := f.(string)
			text, err := readSetting("http_headers."+name+".files", path)
			if err != nil {
				return err
			}
			secrets = append(slices.Clip(secrets), text)
		}
		if len(files) > 0 {
			delete(h, "files")
			h["secrets"] = secrets
		}
	}
	return nil
}

func readSetting(key, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err == nil && len(b) > maxRead {
		err = fmt.Errorf("%s has more than %d bytes", path, maxRead)
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// templatesOf are the texts of template files, in the order in which they are read.
func templatesOf(globs []string) (out []string, _ error) {
	for _, g := range globs {
		files, err := filepath.Glob(g)
		if err != nil {
			return nil, fmt.Errorf("find templates %s: %w", g, err)
		}
		for _, path := range files {
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read template: %w", err)
			}
			out = append(out, string(b))
		}
	}
	return out, nil
}
