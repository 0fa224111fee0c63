package bundle

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed all:bin
var embedded embed.FS

// Names of the helper files.
const (
	shimName  = "perch-shim"
	cniName   = "perch-cni"               // a hard link to perch-shim
	runtimeV2 = "containerd-shim-runc-v2" // another; containerd looks for it on PATH
	runcName  = "runc"
	pauseName = "pause.tar"
)

// Helpers are the programs that the embedded runtime needs. All paths are
// absolute and stay valid for as long as the data dir exists.
type Helpers struct {
	Dir        string // folder of Shim and CNI; belongs in front of PATH where containerd runs
	Shim       string // containerd runc-v2 shim, also there as containerd-shim-runc-v2
	CNI        string // the CNI plugin; its file name is the plugin's type, "perch-cni"
	Runc       string // OCI runtime
	PauseImage string // OCI archive with one image whose entrypoint is /pause
	PauseSum   string // first 12 hex digits of the archive's sha256
	Seccomp    bool   // Runc can filter system calls; if not, report SeccompUnavailable
	Why        string // why this Runc was chosen, one sentence
}

// SeccompCondition tells what a node's condition SeccompUnavailable says: its
// status and its message.
func (h Helpers) SeccompCondition() (unavailable bool, message string) { return !h.Seccomp, h.Why }

// Open makes the helpers usable under dir, which is created as needed. A perch
// built without them takes them from beside the executable or from PATH. The
// error is one sentence that says what to do.
func Open(dir string, log *slog.Logger) (Helpers, error) {
	beside := ""
	if self, err := os.Executable(); err == nil {
		beside = filepath.Dir(self)
	}
	files, err := fs.Sub(embedded, "bin")
	if err != nil {
		return Helpers{}, fmt.Errorf("read embedded helpers: %w", err)
	}
	h, err := open(files, dir, beside)
	if err != nil {
		return Helpers{}, err
	}
	log.Info("helpers found", "dir", h.Dir, "runc", h.Runc, "seccomp", h.Seccomp, "why", h.Why)
	return h, nil
}

func open(files fs.FS, dir, beside string) (Helpers, error) {
	source := files
	carried := has(files, shimName) && has(files, pauseName)
	if !carried {
		found := find(beside, shimName)
		if found == "" || !has(os.DirFS(filepath.Dir(found)), pauseName) {
			return Helpers{}, fmt.Errorf("this perch was built without its helpers (perch-shim, pause.tar) and they are neither in %s nor on PATH: build it with \"make build\"", beside)
		}
		source = os.DirFS(filepath.Dir(found))
	}
	at, pauseSum, err := extract(source, dir)
	if err != nil {
		return Helpers{}, fmt.Errorf("write helpers to %s: %w", dir, err)
	}
	h := Helpers{Dir: at, Shim: filepath.Join(at, shimName), CNI: filepath.Join(at, cniName), PauseImage: filepath.Join(at, pauseName), PauseSum: pauseSum}

	var have []runc
	if path := filepath.Join(at, runcName); exists(path) {
		have = append(have, runc{path: path, embedded: true, seccomp: filtersCalls(path)})
	}
	if len(have) == 0 || !have[0].seccomp {
		if path := find(beside, runcName); path != "" {
			have = append(have, runc{path: path, seccomp: filtersCalls(path)})
		}
	}
	chosen, why, err := chooseRunc(have)
	if err != nil {
		return Helpers{}, err
	}
	h.Runc, h.Seccomp, h.Why = chosen.path, chosen.seccomp, why
	return h, nil
}

// extract writes the helpers to dir/<sha256 of all of them>, once. The folder
// appears complete or not at all, so one that is there is whole.
func extract(files fs.FS, dir string) (at, pauseSum string, err error) {
	names := slices.DeleteFunc([]string{shimName, runcName, pauseName}, func(n string) bool { return !has(files, n) })
	sum := sha256.New()
	content := map[string][]byte{}
	for _, n := range names {
		if content[n], err = fs.ReadFile(files, n); err != nil {
			return "", "", err
		}
		fmt.Fprintf(sum, "%s %d\n", n, len(content[n])) // names and sizes keep the parts apart
		sum.Write(content[n])
	}
	pause := sha256.Sum256(content[pauseName])
	pauseSum = hex.EncodeToString(pause[:6])
	at = filepath.Join(dir, hex.EncodeToString(sum.Sum(nil)))
	if exists(at) {
		return at, pauseSum, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", err
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(tmp)
	for _, n := range names {
		if err := writeSynced(filepath.Join(tmp, n), content[n]); err != nil {
			return "", "", err
		}
	}
	for _, n := range []string{cniName, runtimeV2} {
		if err := os.Link(filepath.Join(tmp, shimName), filepath.Join(tmp, n)); err != nil {
			return "", "", err
		}
	}
	if err := os.Rename(tmp, at); err != nil && !exists(at) { // another role of this node may have been first
		return "", "", err
	}
	return at, pauseSum, nil
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func has(files fs.FS, name string) bool {
	info, err := fs.Stat(files, name)
	return err == nil && info.Mode().IsRegular()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// find looks for a program beside the executable, then on PATH.
func find(beside, name string) string {
	if path := filepath.Join(beside, name); beside != "" && has(os.DirFS(beside), name) {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return path
}

// filtersCalls asks a runc whether it was built with seccomp. A runc too old to
// know the question (before 1.1) says so in its version.
func filtersCalls(path string) bool {
	if out, err := exec.Command(path, "features").Output(); err == nil {
		var f struct {
			Linux struct {
				Seccomp struct {
					Enabled bool `json:"enabled"`
				} `json:"seccomp"`
			} `json:"linux"`
		}
		return json.Unmarshal(out, &f) == nil && f.Linux.Seccomp.Enabled
	}
	out, err := exec.Command(path, "--version").Output()
	return err == nil && strings.Contains(string(out), "libseccomp")
}
