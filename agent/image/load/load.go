package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	coreimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kubernetes is the containerd namespace in which CRI keeps its things.
const kubernetes = "k8s.io"

// Image is one name in the image store.
type Image struct {
	Name    string // with registry and tag
	Digest  string // of the manifest, or of the index
	Size    int64  // bytes of the compressed content
	Created time.Time
}

// Loader works on the image store of one node.
type Loader struct {
	c         *client.Client
	cri       cri.ImageServiceClient
	snapshots string
}

// Option changes how a Loader works.
type Option func(*Loader)

// Snapshots names the snapshotter into which images are unpacked; without it
// "overlayfs".
func Snapshots(name string) Option { return func(l *Loader) { l.snapshots = name } }

// Open connects to the runtime's socket and checks that containerd is there.
func Open(ctx context.Context, socket string, options ...Option) (*Loader, error) {
	c, err := client.New(strings.TrimPrefix(socket, "unix://"), client.WithTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("open image store %s: %w", socket, err)
	}
	l := &Loader{c: c, snapshots: "overlayfs"}
	for _, o := range options {
		o(l)
	}
	conn, ok := c.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, errors.Join(fmt.Errorf("open image store %s: no connection", socket), c.Close())
	}
	l.cri = cri.NewImageServiceClient(conn)
	if _, err := c.Version(ctx); err != nil {
		if errdefs.IsNotImplemented(err) {
			err = errors.New("this runtime is not containerd; use its own tool to load image archives")
		}
		return nil, errors.Join(fmt.Errorf("open image store %s: %w", socket, err), c.Close())
	}
	return l, nil
}

// Close ends the connection.
func (l *Loader) Close() error { return l.c.Close() }

// Import reads an OCI or Docker archive, plain or compressed, unpacks its
// images for this machine's platform and returns them once CRI knows them. An
// archive whose images have no name is refused.
func (l *Loader) Import(ctx context.Context, archive io.Reader) ([]Image, error) {
	ctx = namespaces.WithNamespace(ctx, kubernetes)
	ctx, done, err := l.c.WithLease(ctx) // content without a name yet must not be collected
	if err != nil {
		return nil, fmt.Errorf("import archive: %w", err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	plain, err := compression.DecompressStream(archive)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	defer plain.Close()
	got, err := l.c.Import(ctx, plain)
	if err != nil {
		return nil, fmt.Errorf("import archive: %w", err)
	}
	var out []Image
	for _, g := range got {
		if g.Name == "" {
			continue
		}
		img := client.NewImage(l.c, g)
		if err := img.Unpack(ctx, l.snapshots); err != nil {
			return nil, fmt.Errorf("unpack image %s: %w", g.Name, err)
		}
		if err := l.await(ctx, g.Name); err != nil {
			return nil, err
		}
		size, _ := img.Size(ctx)
		out = append(out, Image{Name: g.Name, Digest: g.Target.Digest.String(), Size: size, Created: g.CreatedAt})
	}
	if len(out) == 0 {
		return nil, errors.New("import archive: it names no image; save it with a tag, such as registry/name:tag")
	}
	return out, nil
}

// await waits until CRI has seen the image's event; it answers from memory.
func (l *Loader) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		r, err := l.cri.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
		if err == nil && r.GetImage() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("import image %s: the runtime does not list it: %w", name, cmp.Or(err, ctx.Err()))
		case <-tick.C:
		}
	}
}

// List returns the images by name. The names by which the runtime refers to
// images itself (digests, pause) are left out.
func (l *Loader) List(ctx context.Context) ([]Image, error) {
	ctx = namespaces.WithNamespace(ctx, kubernetes)
	have, err := l.c.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Image
	for _, h := range have {
		if strings.HasPrefix(h.Name, "sha256:") || strings.Contains(h.Name, "@") || strings.HasPrefix(h.Name, "perch.internal/pause:") {
			continue
		}
		size, err := client.NewImage(l.c, h).Size(ctx)
		if err != nil {
			size = h.Target.Size // content of another platform is not here
		}
		out = append(out, Image{Name: h.Name, Digest: h.Target.Digest.String(), Size: size, Created: h.CreatedAt})
	}
	slices.SortFunc(out, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Remove takes an image's name away; its content goes with the last name.
func (l *Loader) Remove(ctx context.Context, name string) error {
	ctx = namespaces.WithNamespace(ctx, kubernetes)
	if err := l.c.ImageService().Delete(ctx, name, coreimages.SynchronousDelete()); err != nil {
		return fmt.Errorf("remove image %s: %w", name, err)
	}
	return nil
}
