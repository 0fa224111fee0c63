package store

import (
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Config says where the member lives and how its peers reach it.
type Config struct {
	Dir  string // created with mode 0700
	Name string // stable name of this member

	// PeerURL is what other servers would dial, for example
	// "https://192.0.2.1:2380". ListenPeer is the host:port to bind; empty means
	// the host of PeerURL. Both only matter when the three files are given.
	PeerURL    string
	ListenPeer string
	PeerCert   string
	PeerKey    string
	PeerCA     string

	QuotaBytes   int64         // size of the backend at which writes are refused
	CompactEvery time.Duration // history older than about this is dropped
	UnsafeNoSync bool          // tests only: an acknowledged write may be lost
}

// Default is one member without a peer door.
func Default() Config {
	return Config{Name: "perch-0", QuotaBytes: 8 << 30, CompactEvery: 5 * time.Minute}
}

// Validate returns all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("store: directory is empty"))
	}
	if c.Name == "" {
		errs = append(errs, errors.New("store: member name is empty"))
	}
	if c.QuotaBytes <= 0 {
		errs = append(errs, fmt.Errorf("store: quota %d bytes is not positive", c.QuotaBytes))
	}
	if c.CompactEvery <= 0 {
		errs = append(errs, fmt.Errorf("store: compaction every %s is not positive", c.CompactEvery))
	}
	files := 0
	for _, f := range []string{c.PeerCert, c.PeerKey, c.PeerCA} {
		if f != "" {
			files++
		}
	}
	if files != 0 && files != 3 {
		errs = append(errs, errors.New("store: peer certificate, key and CA belong together"))
	}
	if files == 3 {
		u, err := url.Parse(c.PeerURL)
		if err != nil || u.Scheme != "https" || u.Port() == "" {
			errs = append(errs, fmt.Errorf("store: peer URL %q is not https://host:port", c.PeerURL))
		}
	}
	return errors.Join(errs...)
}

// hasPeerDoor says that other members can reach this one.
func (c Config) hasPeerDoor() bool { return c.PeerCert != "" }
