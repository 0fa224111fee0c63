package runtime

import "testing"

func TestCallsHaveKubeletsWords(t *testing.T) {
	for method, want := range map[string]string{
		"RunPodSandbox": "run_podsandbox", "PodSandboxStatus": "podsandbox_status", "ListContainers": "list_containers", "ExecSync": "exec_sync",
		"PullImage": "pull_image", "ImageFsInfo": "image_fs_info", "UpdateContainerResources": "update_container", "PortForward": "port_forward",
		"ReopenContainerLog": "reopen_container_log", "Version": "version",
	} {
		if got := operation(method); got != want {
			t.Errorf("%s is %s, want %s", method, got, want)
		}
	}
}
