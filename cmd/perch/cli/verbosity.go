package cli

import (
	"flag"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
)

// verbosity gives kubectl its -v and --vmodule: 6 shows each request, 8 its
// body. kubectl's own main adds them, not the command that is embedded here.
func verbosity(fs *pflag.FlagSet) {
	all := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(all)
	for _, name := range []string{"v", "vmodule"} {
		fs.AddGoFlag(all.Lookup(name))
	}
}
