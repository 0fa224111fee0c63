package runtime

import (
	"context"
	"errors"
	"math"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox implements Pods.
func (c *Client) RunPodSandbox(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error) {
	name := config.GetMetadata().GetNamespace() + "/" + config.GetMetadata().GetName()
	r, err := act(ctx, c.cfg.Act, "run pod", name, c.pods.RunPodSandbox, &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return r.GetPodSandboxId(), err
}

// StopPodSandbox implements Pods.
func (c *Client) StopPodSandbox(ctx context.Context, id string) error {
	_, err := act(ctx, c.cfg.Act, "stop pod", id, c.pods.StopPodSandbox, &cri.StopPodSandboxRequest{PodSandboxId: id})
	return unlessGone(err)
}

// RemovePodSandbox implements Pods.
func (c *Client) RemovePodSandbox(ctx context.Context, id string) error {
	_, err := act(ctx, c.cfg.Act, "remove pod", id, c.pods.RemovePodSandbox, &cri.RemovePodSandboxRequest{PodSandboxId: id})
	return unlessGone(err)
}

// PodSandboxStatus implements Pods.
func (c *Client) PodSandboxStatus(ctx context.Context, id string) (*cri.PodSandboxStatus, error) {
	r, err := ask(ctx, c, "read pod", id, c.pods.PodSandboxStatus, &cri.PodSandboxStatusRequest{PodSandboxId: id})
	return r.GetStatus(), err
}

// ListPodSandbox implements Pods.
func (c *Client) ListPodSandbox(ctx context.Context, filter *cri.PodSandboxFilter) ([]*cri.PodSandbox, error) {
	r, err := ask(ctx, c, "list pods", "", c.pods.ListPodSandbox, &cri.ListPodSandboxRequest{Filter: filter})
	return r.GetItems(), err
}

// CreateContainer implements Containers.
func (c *Client) CreateContainer(ctx context.Context, podID string, config *cri.ContainerConfig, pod *cri.PodSandboxConfig) (string, error) {
	shim, err := c.shimWritesLogs(ctx)
	if err != nil {
		return "", err
	}
	config = withLog(config, pod.GetLogDirectory(), shim)
	r, err := act(ctx, c.cfg.Act, "create container", config.GetMetadata().GetName(), c.pods.CreateContainer,
		&cri.CreateContainerRequest{PodSandboxId: podID, Config: config, SandboxConfig: pod})
	return r.GetContainerId(), err
}

// StartContainer implements Containers.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := act(ctx, c.cfg.Act, "start container", id, c.pods.StartContainer, &cri.StartContainerRequest{ContainerId: id})
	return err
}

// StopContainer implements Containers. The wire knows whole seconds: grace is
// rounded up.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	seconds := int64(math.Ceil(max(0, grace).Seconds()))
	limit := time.Duration(seconds)*time.Second + 30*time.Second
	_, err := act(ctx, limit, "stop container", id, c.pods.StopContainer, &cri.StopContainerRequest{ContainerId: id, Timeout: seconds})
	return unlessGone(err)
}

// RemoveContainer implements Containers.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := act(ctx, c.cfg.Act, "remove container", id, c.pods.RemoveContainer, &cri.RemoveContainerRequest{ContainerId: id})
	return unlessGone(err)
}

// ListContainers implements Containers.
func (c *Client) ListContainers(ctx context.Context, filter *cri.ContainerFilter) ([]*cri.Container, error) {
	r, err := ask(ctx, c, "list containers", "", c.pods.ListContainers, &cri.ListContainersRequest{Filter: filter})
	for _, h := range r.GetContainers() {
		delete(h.Annotations, LogAnnotation)
	}
	return r.GetContainers(), err
}

// ContainerStatus implements Containers.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*cri.ContainerStatus, error) {
	r, err := ask(ctx, c, "read container", id, c.pods.ContainerStatus, &cri.ContainerStatusRequest{ContainerId: id})
	return showLog(r.GetStatus()), err
}

// UpdateContainerResources implements Containers.
func (c *Client) UpdateContainerResources(ctx context.Context, id string, resources *cri.ContainerResources) error {
	_, err := act(ctx, c.cfg.Act, "resize container", id, c.pods.UpdateContainerResources,
		&cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources.GetLinux()})
	return err
}

// ReopenContainerLog implements Containers.
func (c *Client) ReopenContainerLog(ctx context.Context, id string) error {
	shim, err := c.shimWritesLogs(ctx)
	if err != nil {
		return err
	}
	if shim {
		return c.reopenByShim(ctx, id)
	}
	_, err = act(ctx, c.cfg.Act, "reopen log of container", id, c.pods.ReopenContainerLog, &cri.ReopenContainerLogRequest{ContainerId: id})
	return err
}

// ContainerStats implements Containers.
func (c *Client) ContainerStats(ctx context.Context, id string) (*cri.ContainerStats, error) {
	r, err := ask(ctx, c, "read usage of container", id, c.pods.ContainerStats, &cri.ContainerStatsRequest{ContainerId: id})
	return r.GetStats(), err
}

// ListContainerStats implements Containers.
func (c *Client) ListContainerStats(ctx context.Context, filter *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	r, err := ask(ctx, c, "list usage of containers", "", c.pods.ListContainerStats, &cri.ListContainerStatsRequest{Filter: filter})
	return r.GetStats(), err
}

// ExecSync implements Streams. The wire knows whole seconds: timeout is rounded
// up for the runtime and exact for the caller.
func (c *Client) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	limit := c.cfg.Act
	if timeout > 0 {
		limit = timeout + time.Second // the runtime's own answer says more than a broken call
	}
	r, err := act(ctx, limit, "exec in container", id, c.pods.ExecSync,
		&cri.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: int64(math.Ceil(timeout.Seconds()))})
	return ExecResult{Stdout: r.GetStdout(), Stderr: r.GetStderr(), ExitCode: r.GetExitCode()}, err
}

// Exec implements Streams.
func (c *Client) Exec(ctx context.Context, req *cri.ExecRequest) (string, error) {
	r, err := act(ctx, c.cfg.Act, "exec in container", req.GetContainerId(), c.pods.Exec, req)
	return r.GetUrl(), err
}

// Attach implements Streams.
func (c *Client) Attach(ctx context.Context, req *cri.AttachRequest) (string, error) {
	r, err := act(ctx, c.cfg.Act, "attach to container", req.GetContainerId(), c.pods.Attach, req)
	return r.GetUrl(), err
}

// PortForward implements Streams.
func (c *Client) PortForward(ctx context.Context, req *cri.PortForwardRequest) (string, error) {
	r, err := act(ctx, c.cfg.Act, "forward ports of pod", req.GetPodSandboxId(), c.pods.PortForward, req)
	return r.GetUrl(), err
}

// ListImages implements Images.
func (c *Client) ListImages(ctx context.Context) ([]*cri.Image, error) {
	r, err := ask(ctx, c, "list images", "", c.image.ListImages, &cri.ListImagesRequest{})
	return r.GetImages(), err
}

// ImageStatus implements Images.
func (c *Client) ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error) {
	r, err := ask(ctx, c, "read image", image.GetImage(), c.image.ImageStatus, &cri.ImageStatusRequest{Image: image})
	return r.GetImage(), err
}

// PullImage implements Images.
func (c *Client) PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, pod *cri.PodSandboxConfig) (string, error) {
	r, err := act(ctx, c.cfg.Pull, "pull image", image.GetImage(), c.image.PullImage,
		&cri.PullImageRequest{Image: image, Auth: auth, SandboxConfig: pod})
	return r.GetImageRef(), err
}

// RemoveImage implements Images.
func (c *Client) RemoveImage(ctx context.Context, image *cri.ImageSpec) error {
	_, err := act(ctx, c.cfg.Act, "remove image", image.GetImage(), c.image.RemoveImage, &cri.RemoveImageRequest{Image: image})
	return unlessGone(err)
}

// ImageFsInfo implements Images.
func (c *Client) ImageFsInfo(ctx context.Context) (*cri.ImageFsInfoResponse, error) {
	return ask(ctx, c, "read image file system", "", c.image.ImageFsInfo, &cri.ImageFsInfoRequest{})
}

// unlessGone makes stopping and removing what is gone already a success.
func unlessGone(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
