package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"

	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/token"
)

const (
	fileTokenLife = 15 * time.Minute
	fileTokenLeft = 5 * time.Minute // what a reader of the file has at least
	fileTokenLook = time.Second
)

// keepJoinToken keeps a join token that nobody has used in --join-token-file,
// so that machines that share a volume with this one join without a person. A
// used one is replaced within a second; at the end file and token go.
func (r role) keepJoinToken(client kubernetes.Interface, pin string) func(context.Context) error {
	path, log := r.cfg.JoinTokenFile, r.part("jointoken")
	return func(ctx context.Context) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("keep join token: %w", err)
		}
		tick := time.NewTicker(fileTokenLook)
		defer tick.Stop()
		var have pki.Join
		for {
			next, err := freshToken(ctx, client, have, pin, path)
			if err != nil && ctx.Err() == nil {
				log.Warn("join token was not kept, trying again", "err", err)
			} else if next != have && err == nil {
				log.Info("join token written", "token", next.ID, "file", path)
				have = next
			}
			select {
			case <-ctx.Done():
				return dropToken(client, have, path)
			case <-tick.C:
			}
		}
	}
}

func freshToken(ctx context.Context, client kubernetes.Interface, have pki.Join, pin, path string) (pki.Join, error) {
	if have.ID != "" {
		good, err := token.Fresh(ctx, client, have.ID, time.Now(), fileTokenLeft)
		if err != nil || good {
			return have, err
		}
	}
	next, err := token.CreateJoin(ctx, client, pin, time.Now(), fileTokenLife)
	if err != nil {
		return have, err
	}
	if err := pki.WriteFile(path, []byte(next.String()+"\n")); err != nil {
		return have, errors.Join(fmt.Errorf("write join token: %w", err), token.DeleteJoin(ctx, client, next.ID))
	}
	return next, nil
}

// dropToken makes the file worthless at once: the API stops after this part.
func dropToken(client kubernetes.Interface, have pki.Join, path string) error {
	if have.ID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if good, err := token.Fresh(ctx, client, have.ID, time.Now(), 0); err != nil || !good {
		return os.Remove(path) // a used one stays until its reason is no longer asked for
	}
	return errors.Join(os.Remove(path), token.DeleteJoin(ctx, client, have.ID))
}
