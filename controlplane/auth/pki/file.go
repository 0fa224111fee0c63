package pki

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteFile replaces a file with mode 0600, whole or not at all.
func WriteFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temporary.Name()) // is gone already when all went well
	if _, err := temporary.Write(data); err != nil {
		temporary.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := temporary.Sync(); err != nil {
		temporary.Close()
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := temporary.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// save writes the key before the certificate: the certificate is what makes a
// pair exist, and a pair cut in two does not match and is issued again.
func save(dir, name string, pair Pair) error {
	if err := WriteFile(filepath.Join(dir, name+".key"), pair.Key); err != nil {
		return err
	}
	return WriteFile(filepath.Join(dir, name+".crt"), pair.Cert)
}

// load answers fs.ErrNotExist when either half is missing.
func load(dir, name string) (Pair, error) {
	cert, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return Pair{}, fmt.Errorf("read certificate %s: %w", name, err)
	}
	key, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return Pair{}, fmt.Errorf("read key %s: %w", name, err)
	}
	return Pair{Cert: cert, Key: key}, nil
}
