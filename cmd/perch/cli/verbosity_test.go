package cli

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestKubectlTakesItsLevelOfVerbosityBeforeAndAfterTheVerb(t *testing.T) {
	t.Cleanup(func() { setLevel(t, "0") })
	for level, line := range []string{"version --client -v=0", "version --client -v 1", "-v=2 version --client", "version --client --v=3"} {
		c := Kubectl("kubectl", Streams{In: strings.NewReader(""), Out: new(bytes.Buffer), Err: new(bytes.Buffer)})
		c.SetArgs(strings.Fields(line))
		if err := c.Execute(); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if !klog.V(klog.Level(level)).Enabled() || klog.V(klog.Level(level+1)).Enabled() {
			t.Errorf("%s does not set the level to %d", line, level)
		}
	}
}

func setLevel(t *testing.T, v string) {
	var l klog.Level
	if err := l.Set(v); err != nil {
		t.Error(err)
	}
}
