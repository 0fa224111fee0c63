package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	srvconfig "github.com/containerd/containerd/v2/cmd/containerd/server/config"
	"github.com/containerd/containerd/v2/version"
	"golang.org/x/sys/unix"

	"perch/agent/runtime"
	"perch/agent/runtime/bundle"
)

// Config says where the runtime keeps its things. Only Dir and Helpers are
// needed; the rest has defaults below Dir.
type Config struct {
	Dir     string         // D, the data dir, absolute
	Helpers bundle.Helpers // shim, runc, CNI plugin, pause image

	Socket     string   // CRI and containerd API; D/run/runtime.sock
	CNIConf    string   // folder with the CNI configuration; D/cni/net.d
	CNIBin     []string // folders with CNI plugins; the helpers' folder comes first
	Certs      string   // folder of certs.d/<registry>/hosts.toml; D/images/certs.d
	ShimCgroup string   // existing cgroup that shims join, such as "/perch-dev/system"; "" leaves them where the runtime is
	Snapshots  string   // "overlayfs" (default) or "native", for file systems on which overlayfs does not work
	NoSync     bool     // tests only: metadata is lost when the machine crashes
}

// Paths below the data dir that Cleanup and others must know too.
func rootDir(dir string) string  { return filepath.Join(dir, "containerd", "root") }
func stateDir(dir string) string { return filepath.Join(dir, "containerd", "state") }
func runcDir(dir string) string  { return filepath.Join(dir, "containerd", "runc") }

// SocketDir is the folder of the shims' sockets: a socket's whole name must fit
// into 108 bytes, which a folder below the data dir would not.
func SocketDir(dir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(dir)))
	return "/run/perch-" + hex.EncodeToString(sum[:6])
}

func (c *Config) complete() error {
	if !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("data dir %q: want an absolute path", c.Dir)
	}
	def := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	def(&c.Socket, filepath.Join(c.Dir, "run", "runtime.sock"))
	def(&c.CNIConf, filepath.Join(c.Dir, "cni", "net.d"))
	def(&c.Certs, filepath.Join(c.Dir, "images", "certs.d"))
	def(&c.Snapshots, "overlayfs")
	c.CNIBin = append([]string{c.Helpers.Dir}, c.CNIBin...)
	if len(c.Socket)+len(".ttrpc") > 107 {
		return fmt.Errorf("socket %s: its name is longer than the 101 bytes that unix sockets allow here; choose a shorter data dir", c.Socket)
	}
	if c.Helpers.Shim == "" || c.Helpers.Runc == "" || c.Helpers.PauseImage == "" {
		return errors.New("helpers are missing: open them with bundle.Open")
	}
	return nil
}

// pauseName is the name under which the pause image is kept: a new build of it
// gets a new name, and running pods keep theirs.
func (c *Config) pauseName() string { return "perch.internal/pause:" + c.Helpers.PauseSum }

// facts are what the generated configuration depends on beyond Config.
type facts struct {
	canRaiseOOMScore bool // CAP_SYS_RESOURCE
	apparmor         bool
}

// generate makes containerd's configuration.
func generate(c Config, f facts) *srvconfig.Config {
	return &srvconfig.Config{
		Version: version.ConfigVersion,
		Root:    rootDir(c.Dir),
		State:   stateDir(c.Dir),
		RequiredPlugins: []string{
			"io.containerd.grpc.v1.cri", "io.containerd.server.v1.grpc", "io.containerd.server.v1.ttrpc",
			"io.containerd.runtime.v2.task", "io.containerd.snapshotter.v1." + c.Snapshots,
		},
		Plugins: map[string]any{
			"io.containerd.server.v1.grpc":  map[string]any{"address": c.Socket},
			"io.containerd.server.v1.ttrpc": map[string]any{"address": c.Socket + ".ttrpc"},
			"io.containerd.shim.v1.manager": map[string]any{"socket_dir": SocketDir(c.Dir)},
			"io.containerd.metadata.v1.bolt": map[string]any{
				"no_sync": c.NoSync,
			},
			"io.containerd.cri.v1.images": map[string]any{
				"snapshotter":   c.Snapshots,
				"registry":      map[string]any{"config_path": c.Certs},
				"pinned_images": map[string]any{"sandbox": c.pauseName()},
				// Seconds. Disk use of images is asked for seldom, walking it is not free.
				"stats_collect_period": 60,
			},
			"io.containerd.transfer.v1.local": map[string]any{
				"unpack_config": []map[string]any{{"platform": "linux", "snapshotter": c.Snapshots, "differ": "walking"}},
			},
			"io.containerd.cri.v1.runtime": map[string]any{
				"enable_selinux":               false,
				"disable_apparmor":             !f.apparmor,
				"restrict_oom_score_adj":       !f.canRaiseOOMScore,
				"enable_criu":                  false,
				"netns_mounts_under_state_dir": true,
				// Lines longer than this come in parts.
				"max_container_log_line_size": 16384,
				// With the default of 1 s, fifty idle pods cost a tenth of a core.
				"stats_collect_period": "60s",
				// A command's child that keeps its output open must not hold a probe forever.
				"drain_exec_sync_io_timeout": "10s",
				"cni": map[string]any{
					"bin_dirs": c.CNIBin, "conf_dir": c.CNIConf, "max_conf_num": 1, "use_internal_loopback": true,
				},
				"containerd": map[string]any{
					"default_runtime_name": "runc",
					"runtimes": map[string]any{"runc": map[string]any{
						"runtime_type": "io.containerd.runc.v2",
						// Tells the client that our shim writes the logs, and the shim where.
						"container_annotations": []string{runtime.LogAnnotation},
						"options": map[string]any{
							"BinaryName": c.Helpers.Runc, "Root": runcDir(c.Dir), "SystemdCgroup": false, "ShimCgroup": c.ShimCgroup,
						},
					}},
				},
			},
			"io.containerd.grpc.v1.cri": map[string]any{
				"disable_tcp_service": true, "stream_server_address": "127.0.0.1", "stream_server_port": "0", "stream_idle_timeout": "4h",
			},
		},
	}
}

// observe reads the facts from this machine.
func observe() facts {
	var f facts
	if text, err := os.ReadFile("/proc/self/status"); err == nil {
		f.canRaiseOOMScore = capable(string(text), unix.CAP_SYS_RESOURCE)
	}
	if text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil {
		_, err := os.Stat("/sbin/apparmor_parser")
		f.apparmor = strings.HasPrefix(string(text), "Y") && err == nil
	}
	return f
}

// capable tells from /proc/self/status whether a capability is effective.
func capable(status string, capability int) bool {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && set>>capability&1 == 1
		}
	}
	return false
}

// StateDirs are the folders below a data dir whose content is lost when the
// machine restarts; runtime.Cleanup empties them.
func StateDirs(dir string) []string { return []string{stateDir(dir), runcDir(dir)} }
