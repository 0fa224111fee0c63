// Package image decides whether a container's image must be fetched, with which
// credentials, and when to try again; and fetches it, a few at a time.
//
// It owns the back-off of each image (10 s, doubled up to 5 min) and the limit
// of pulls at the same time. It never chooses what runs and never collects
// garbage: unused images stay until `perch images rm` (disk pressure will be
// agent/eviction's). Archives are loaded by the subpackage load.
//
//	p := image.New(image.Config{Parallel: 3}, rt, log, reg)
//	got, err := p.Ensure(ctx, image.Request{Image: …, Policy: …, Secrets: …, Pod: sandboxConfig})
//	var why *image.Waiting; errors.As(err, &why) // why.Reason: ErrImagePull, ImagePullBackOff, ErrImageNeverPull, InvalidImageName
//
// Start reading at Decide in decide.go, then Ensure in pull.go.
package image
