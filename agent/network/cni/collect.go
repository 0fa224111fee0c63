package cni

import (
	"errors"
	"fmt"
	"time"
)

// Collect removes the links and frees the addresses of all sandboxes that are
// not in valid. Addresses taken after listed, the moment the caller asked the
// runtime for its sandboxes, stay: their sandbox may be too young for the list.
// It returns the number of addresses freed.
func Collect(c Config, valid []Attachment, listed time.Time) (int, error) {
	keep := make(map[string]bool, len(valid))
	for _, at := range valid {
		keep[LinkName(c.Network, at)] = true
	}
	store, err := openAddresses(c)
	if err != nil {
		return 0, err
	}
	defer store.close()
	var errs []error
	n, err := store.free(func(h held) bool {
		if keep[h.owner] || !store.age(h).Before(listed) {
			return false
		}
		if err := delLink(h.owner); err != nil {
			errs = append(errs, err)
			return false
		}
		return true
	})
	return n, errors.Join(append(errs, err)...)
}

// Attach does what the runtime's ADD does, without a process of its own.
func Attach(c Config, at Attachment, netnsPath string) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("attach sandbox %s: %w", at.ContainerID, err)
	}
	_, err := add(c, at, netnsPath)
	return err
}
