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
	return l.importAll(ctx, archive, func(i coreimages.Image) coreimages.Image { return i })
}

// ImportAs imports an archive with one image under another name. A pinned image
// is never collected.
func (l *Loader) ImportAs(ctx context.Context, archive io.Reader, name string, pinned bool) error {
	got, err := l.importAll(ctx, archive, func(i coreimages.Image) coreimages.Image {
		i.Name = name
		if pinned {
			i.Labels = map[string]string{"io.cri-containerd.pinned": "pinned"}
		}
		return i
	})
	if err == nil && len(got) != 1 {
		err = fmt.Errorf("import image %s: the archive holds %d images, want one", name, len(got))
	}
	return err
}

// Has tells whether an image is there, unpacked.
func (l *Loader) Has(ctx context.Context, name string) (bool, error) {
	ctx = namespaces.WithNamespace(ctx, kubernetes)
	img, err := l.c.GetImage(ctx, name)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read image %s: %w", name, err)
	}
	unpacked, err := img.IsUnpacked(ctx, l.snapshots)
	if err != nil {
		return false, nil // content is missing: import it again
	}
	return unpacked, nil
}

func (l *Loader) importAll(ctx context.Context, archive io.Reader, name func(coreimages.Image) coreimages.Image) ([]Image, error) {
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
		img, err := l.keep(ctx, g, name(g))
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	if len(out) == 0 {
		return nil, errors.New("import archive: it names no image; save it with a tag, such as registry/name:tag")
	}
	return out, nil
}

// keep gives an imported image the name it is wanted under, unpacks it and
// waits until CRI knows it.
func (l *Loader) keep(ctx context.Context, got, want coreimages.Image) (Image, error) {
	store := l.c.ImageService()
	if want.Name != got.Name {
		if _, err := store.Create(ctx, want); err != nil && !errdefs.IsAlreadyExists(err) {
			return Image{}, fmt.Errorf("name image %s: %w", want.Name, err)
		}
		if _, err := store.Update(ctx, want); err != nil {
			return Image{}, fmt.Errorf("name image %s: %w", want.Name, err)
		}
		if err := store.Delete(ctx, got.Name); err != nil && !errdefs.IsNotFound(err) {
			return Image{}, fmt.Errorf("remove image %s: %w", got.Name, err)
		}
	}
	img := client.NewImage(l.c, want)
	if err := img.Unpack(ctx, l.snapshots); err != nil {
		return Image{}, fmt.Errorf("unpack image %s: %w", want.Name, err)
	}
	if err := l.await(ctx, want.Name); err != nil {
		return Image{}, err
	}
	size, _ := img.Size(ctx) // content of other platforms may be missing
	return Image{Name: want.Name, Digest: want.Target.Digest.String(), Size: size, Created: want.CreatedAt}, nil
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
