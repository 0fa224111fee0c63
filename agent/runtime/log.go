package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// LogAnnotation tells perch's shim where a container's log goes. The shim writes
// it itself: it lives as long as the container, so that killing the runtime
// loses nothing and stops nobody. With a runtime that has another shim the
// runtime writes the log, as CRI says; callers see no difference.
const LogAnnotation = "perch.internal/log"

// shimWritesLogs asks the runtime, once, whether its shim is ours: then its
// configuration hands our annotation on.
func (c *Client) shimWritesLogs(ctx context.Context) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shimLogs != nil {
		return *c.shimLogs, nil
	}
	r, err := ask(ctx, c, "read configuration of runtime", "", c.pods.Status, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return false, err
	}
	yes := handsOn(r.GetInfo()["config"], LogAnnotation)
	c.shimLogs = &yes
	return yes, nil
}

// handsOn reads from containerd's configuration whether its default runtime
// gets an annotation. Other runtimes have another configuration, or none.
func handsOn(config, annotation string) bool {
	var have struct {
		Containerd struct {
			DefaultRuntimeName string `json:"defaultRuntimeName"`
			Runtimes           map[string]struct {
				ContainerAnnotations []string `json:"ContainerAnnotations"`
			} `json:"runtimes"`
		} `json:"containerd"`
	}
	if json.Unmarshal([]byte(config), &have) != nil {
		return false
	}
	return slices.Contains(have.Containerd.Runtimes[have.Containerd.DefaultRuntimeName].ContainerAnnotations, annotation)
}

// withLog says in a container's configuration who writes its log where. The
// annotation is never a caller's own: the shim writes with root's rights.
func withLog(config *cri.ContainerConfig, logDir string, shim bool) *cri.ContainerConfig {
	_, forged := config.GetAnnotations()[LogAnnotation]
	if !forged && (!shim || logDir == "" || config.GetLogPath() == "") {
		return config
	}
	out := proto.Clone(config).(*cri.ContainerConfig)
	delete(out.Annotations, LogAnnotation)
	if !shim || logDir == "" || out.LogPath == "" {
		return out
	}
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[LogAnnotation] = filepath.Join(logDir, out.LogPath)
	out.LogPath = ""
	return out
}

// showLog puts a status as if the runtime wrote the log.
func showLog(st *cri.ContainerStatus) *cri.ContainerStatus {
	if path, ok := st.GetAnnotations()[LogAnnotation]; ok {
		st.LogPath = path
		delete(st.Annotations, LogAnnotation)
	}
	return st
}

// reopenByShim makes the new log file; the shim writes to whatever file has the
// log's name.
func (c *Client) reopenByShim(ctx context.Context, id string) error {
	st, err := c.ContainerStatus(ctx, id)
	if err != nil {
		return err
	}
	if st.State != cri.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("reopen log of container %s: %w: it is in %s", id, ErrState, st.State)
	}
	if st.LogPath == "" {
		return nil
	}
	f, err := os.OpenFile(st.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("reopen log of container %s: %w", id, err)
	}
	return f.Close()
}
