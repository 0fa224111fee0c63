// Package volume puts a pod's volumes below D/pods/<uid>/volumes and says where
// containers mount them.
//
// It owns those directories and mounts: emptyDir (disk, or memory with a limit),
// hostPath with its checks, and the written kinds configMap, secret, projected
// and downwardAPI. Written files appear through the symbolic link ..data, which
// is replaced in one step, so a reader sees all old or all new files. Secrets
// and tokens lie on a tmpfs. Everything can be repeated after a crash: what is
// there is found by looking (mount table, marker files), not remembered.
//
// It never watches objects; the agent calls Refresh when one changed. Volumes
// of claims and of plugins are refused with a sentence that says so.
//
//	v := volume.New(volume.Config{Pods: D/pods}, source, log)
//	v.Mount(ctx, pod, facts); v.Mounts(ctx, pod, container, env); v.Refresh(…); v.Release(ctx, uid)
//
// Start reading at Mount in volume.go, then write in written.go.
package volume
