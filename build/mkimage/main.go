// Command mkimage makes an OCI image archive without a registry or a daemon:
// from a folder, from one static binary, or from busybox.
//
//	mkimage -o busybox.tar -tag docker.io/library/busybox:latest -busybox /usr/bin/busybox -cmd sh
//	mkimage -o app.tar -tag docker.io/library/app:v1 -static bin/app:/app -entrypoint /app
//	mkimage -o nginx.tar -tag docker.io/library/nginx:latest -rootfs DIR -entrypoint "nginx -g daemon\ off;"
//
// The same input makes the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

type options struct {
	out, tag                string
	rootfs, static, busybox string
	entrypoint, cmd         string
	env, user, dir, port    string
}

func main() {
	var o options
	flag.StringVar(&o.out, "o", "", "archive to write")
	flag.StringVar(&o.tag, "tag", "", "name of the image, with its registry")
	flag.StringVar(&o.rootfs, "rootfs", "", "folder that becomes the image")
	flag.StringVar(&o.static, "static", "", "SOURCE:PATH[,SOURCE:PATH…] files that become the image")
	flag.StringVar(&o.busybox, "busybox", "", "static busybox that becomes the image, with a link for each applet")
	flag.StringVar(&o.entrypoint, "entrypoint", "", "words of the entrypoint; \"\\ \" is a blank inside a word")
	flag.StringVar(&o.cmd, "cmd", "", "words of the default command")
	flag.StringVar(&o.env, "env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NAME=VALUE[,…]")
	flag.StringVar(&o.user, "user", "", "user of the process")
	flag.StringVar(&o.dir, "workdir", "", "working directory")
	flag.StringVar(&o.port, "port", "", "exposed port, such as 80/tcp")
	flag.Parse()
	if err := write(o); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func write(o options) error {
	ref, err := name.NewTag(o.tag)
	if err != nil {
		return fmt.Errorf("read tag: %w", err)
	}
	content, err := layer(o)
	if err != nil {
		return fmt.Errorf("pack %s: %w", o.tag, err)
	}
	img, err := image(o, content)
	if err != nil {
		return fmt.Errorf("make %s: %w", o.tag, err)
	}
	// Readers see the old archive or the whole new one.
	tmp := o.out + ".new"
	if err := tarball.WriteToFile(tmp, ref, img); err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	return os.Rename(tmp, o.out)
}

func image(o options, content []byte) (v1.Image, error) {
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(1))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, l); err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", cmp.Or(os.Getenv("GOARCH"), runtime.GOARCH)
	cf.Config = v1.Config{Env: strings.Split(o.env, ","), User: o.user, WorkingDir: o.dir, Entrypoint: wordsOf(o.entrypoint), Cmd: wordsOf(o.cmd)}
	if o.port != "" {
		cf.Config.ExposedPorts = map[string]struct{}{o.port: {}}
	}
	return mutate.ConfigFile(img, cf)
}

// wordsOf splits at blanks that no backslash precedes.
func wordsOf(s string) []string {
	var out []string
	for _, w := range strings.Fields(strings.ReplaceAll(s, `\ `, "\x00")) {
		out = append(out, strings.ReplaceAll(w, "\x00", " "))
	}
	return out
}

func layer(o options) ([]byte, error) {
	var buf bytes.Buffer
	t := &archive{Writer: tar.NewWriter(&buf)}
	var err error
	switch {
	case o.busybox != "":
		err = t.busybox(o.busybox)
	case o.static != "":
		for pair := range strings.SplitSeq(o.static, ",") {
			source, target, ok := strings.Cut(pair, ":")
			if !ok {
				return nil, fmt.Errorf("want SOURCE:PATH, have %q", pair)
			}
			if err = t.copyFile(source, target); err != nil {
				break
			}
		}
	case o.rootfs != "":
		err = t.folder(o.rootfs)
	default:
		err = fmt.Errorf("want one of -rootfs, -static, -busybox")
	}
	if err != nil {
		return nil, err
	}
	return buf.Bytes(), t.Close()
}

type archive struct{ *tar.Writer }

func (t *archive) dir(name string, mode int64) error {
	return t.WriteHeader(&tar.Header{Name: name + "/", Mode: mode, Typeflag: tar.TypeDir})
}

func (t *archive) file(name string, content []byte, mode int64) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := t.Write(content)
	return err
}

func (t *archive) copyFile(source, target string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	mode := int64(0o755)
	if info, err := os.Stat(source); err == nil {
		mode = int64(info.Mode().Perm())
	}
	return t.file(strings.TrimPrefix(target, "/"), content, mode)
}

func (t *archive) busybox(binary string) error {
	for _, d := range []string{"bin", "sbin", "etc", "root", "home", "var", "var/www", "usr", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run"} {
		if err := t.dir(d, 0o755); err != nil {
			return err
		}
	}
	if err := t.dir("tmp", 0o1777); err != nil {
		return err
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	if err := t.file("bin/busybox", content, 0o755); err != nil {
		return err
	}
	list, err := exec.Command(binary, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("list applets of %s: %w", binary, err)
	}
	applets := strings.Fields(string(list))
	slices.Sort(applets)
	for _, a := range applets {
		if a == "bin/busybox" || strings.Contains(a, "linuxrc") {
			continue
		}
		if err := t.WriteHeader(&tar.Header{Name: a, Linkname: "bin/busybox", Mode: 0o755, Typeflag: tar.TypeLink}); err != nil {
			return err
		}
	}
	for _, f := range [][2]string{
		{"etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"},
		{"etc/group", "root:x:0:\nwww-data:x:33:\nnobody:x:65534:\n"},
		{"etc/nsswitch.conf", "hosts: files dns\n"},
	} {
		if err := t.file(f[0], []byte(f[1]), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (t *archive) folder(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if info.Mode()&fs.ModeSocket != 0 {
			return nil
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name = name
		if info.IsDir() {
			h.Name += "/"
		}
		h.Uname, h.Gname = "", ""
		if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(t, f)
		return err
	})
}
