package daemon

import (
	"github.com/spf13/pflag"

	"perch/cmd/perch/daemon/config"
)

// logFlags are those of lines: how they come in, stay and go on.
func logFlags(fs *pflag.FlagSet, cfg *config.Config) {
	fs.StringVar(&cfg.ForwardKeys, "forward-keys", cfg.ForwardKeys, "file with a line \"NAME SECRET [NAMESPACE]\" for each sender on other machines that may use the forward port")
	fs.StringVar(&cfg.ForwardTLSCert, "forward-tls-cert", cfg.ForwardTLSCert, "file with the certificate that the forward port shows to senders that use TLS (default: this node's, of the cluster's CA)")
	fs.StringVar(&cfg.ForwardTLSKey, "forward-tls-key", cfg.ForwardTLSKey, "file with its key")
	fs.BoolVar(&cfg.ForwardTLSOnly, "forward-tls-only", cfg.ForwardTLSOnly, "take lines of other machines only over TLS")
	fs.StringVar(&cfg.ForwardTo, "forward-to", cfg.ForwardTo, "[tls://]HOST:PORT of a Fluentd or Fluent Bit that gets all lines of this node too")
	fs.StringVar(&cfg.ForwardToKey, "forward-to-key", cfg.ForwardToKey, "file with the shared key of --forward-to")
	fs.StringVar(&cfg.ForwardToCA, "forward-to-ca", cfg.ForwardToCA, "file with the CA that --forward-to tls:// must be certified by (default: those of the system)")
	fs.StringVar(&cfg.ForwardToStart, "forward-to-start", cfg.ForwardToStart, "now or beginning: what a new --forward-to gets first (default: now; beginning is all that is stored)")
	fs.IntVar(&cfg.SyslogPort, "syslog", cfg.SyslogPort, "take syslog of this machine and its pods over TCP and UDP, on 1514 or --syslog=PORT (default: off)")
	fs.Lookup("syslog").NoOptDefVal = "1514"
	fs.StringSliceVar(&cfg.LogRetention, "log-retention", cfg.LogRetention, "how long lines are kept, AGE or NAMESPACE=AGE, repeatable; annotation perch.dev/log-retention of a Namespace goes before (default: 7d)")
	fs.StringSliceVar(&cfg.LogBytes, "log-bytes", cfg.LogBytes, "how many bytes of lines are kept on this node, compressed, SIZE or NAMESPACE=SIZE, repeatable; annotation perch.dev/log-bytes of a Namespace goes before (default: 8Gi)")
	if cfg.Kind == config.Server {
		fs.StringVar(&cfg.Audit, "audit", cfg.Audit, "which requests to the API become lines of kind:audit: off, writes (but perch's own) or all (default: writes)")
	}
}
