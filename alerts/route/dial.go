package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/config"
	amcommon "github.com/prometheus/alertmanager/config/common"
	"github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/notify/email"
	"github.com/prometheus/alertmanager/template"
	commoncfg "github.com/prometheus/common/config"
)

// dialTimeout of one connection to a receiver.
const dialTimeout = 30 * time.Second

// ofNamespace tells whether a receiver is one of a namespace: Merge calls it
// namespace/object/name. One of the cluster's configuration with two slashes in its
// name is kept to the same rules.
func ofNamespace(receiver string) bool { return strings.Count(receiver, "/") >= 2 }

// build makes the integrations of a receiver. Those of a namespace do not connect to
// Config.Guarded addresses, unless the cluster's own settings name them for all.
func (r *Router) build(conf *config.Config, rc config.Receiver, tmpl *template.Template) ([]notify.Integration, error) {
	d := dialer{resolve: r.cfg.Resolve}
	if ofNamespace(rc.Name) {
		d.guarded, d.open = r.cfg.Guarded, globalAddresses(conf.Global)
	}
	out, err := receiver.BuildReceiverIntegrations(rc, tmpl, r.log, commoncfg.WithDialContextFunc(d.dial))
	if err != nil {
		return nil, fmt.Errorf("build receiver %s: %w", rc.Name, err)
	}
	for i, x := range out {
		if x.Name() == "email" { // dials itself
			out[i] = notify.NewIntegration(mail{d, rc.EmailConfigs[x.Index()], tmpl, r.log}, &x, x.Name(), x.Index(), rc.Name)
		}
	}
	return out, nil
}

// own refuses what would act with the rights of this machine: without keys the
// library takes what it finds here.
func own(rc config.Receiver) error {
	for i, c := range rc.SNSConfigs {
		if c.Sigv4.AccessKey == "" || c.Sigv4.SecretKey == "" || c.Sigv4.Profile != "" || c.UseAWSHTTPClient {
			return fmt.Errorf("sns_configs[%d]: sigv4 needs an access_key and a secret_key and no profile, and use_aws_http_client is not for namespaces", i)
		}
	}
	return nil
}

// Open are the addresses, host:port, that a cluster's configuration names for all:
// receivers of namespaces are connected there whatever they are.
func Open(text string) (map[string]bool, error) {
	conf, err := load(text)
	if err != nil {
		return nil, err
	}
	return globalAddresses(conf.Global), nil
}

// globalAddresses are where the cluster's settings send what names no address itself.
func globalAddresses(g *config.GlobalConfig) map[string]bool {
	out := map[string]bool{g.SMTPSmarthost.String(): true}
	add := func(u *url.URL) {
		if u != nil && u.Host != "" {
			out[HostPort(u)] = true
		}
	}
	for _, u := range []*amcommon.SecretURL{g.SlackAPIURL, g.MattermostWebhookURL} {
		if u != nil {
			add(u.URL)
		}
	}
	if g.HTTPConfig != nil {
		add(g.HTTPConfig.ProxyURL.URL)
		if o := g.HTTPConfig.OAuth2; o != nil {
			add(o.ProxyURL.URL)
			if u, err := url.Parse(o.TokenURL); err == nil { // one that cannot be read is nobody's
				add(u)
			}
		}
	}
	for _, u := range []*amcommon.URL{g.SlackAppURL, g.PagerdutyURL, g.OpsGenieAPIURL, g.WeChatAPIURL, g.VictorOpsAPIURL, g.TelegramAPIUrl, g.WebexAPIURL, g.RocketchatAPIURL, g.JiraAPIURL} {
		if u != nil {
			add(u.URL)
		}
	}
	return out
}

// HostPort is what is connected for a URL: host:port.
func HostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// dialer connects to receivers.
type dialer struct {
	resolve func(host string) (ip string, ok bool) // names that only the cluster knows
	guarded func(netip.Addr) bool                  // not connected; nil: none is
	open    map[string]bool                        // host:port that are connected all the same
}

func (d dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dial := net.Dialer{Timeout: dialTimeout}
	if d.guarded != nil && !d.open[address] {
		dial.Control = func(_, to string, _ syscall.RawConn) error { // here, so that names and redirects are no way around
			if at, err := netip.ParseAddrPort(to); err != nil || d.guarded(at.Addr()) {
				return Refusal(address)
			}
			return nil
		}
	}
	to := address
	if host, port, err := net.SplitHostPort(address); err == nil {
		if ip, ok := d.known(host); ok {
			to = net.JoinHostPort(ip, port)
		}
	}
	return dial.DialContext(ctx, network, to)
}

func (d dialer) known(host string) (string, bool) {
	if d.resolve == nil {
		return "", false
	}
	return d.resolve(host)
}

// ip is one address of a host that may be connected.
func (d dialer) ip(ctx context.Context, host, port string) (string, error) {
	all := []netip.Addr{}
	if text, ok := d.known(host); ok {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return "", err
		}
		all = append(all, ip)
	} else {
		var err error
		if all, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
			return "", err
		}
	}
	for _, a := range all {
		if d.guarded == nil || d.open[net.JoinHostPort(host, port)] || !d.guarded(a) {
			return a.Unmap().String(), nil
		}
	}
	return "", Refusal(net.JoinHostPort(host, port))
}

// Refusal says why a receiver of a namespace is not connected to an address.
func Refusal(address string) error {
	return errors.New(address + " is the machine that sends notifications, or only it may reach it: a receiver of a namespace may not name it")
}

// mail sends by the address that the host has now, as other receivers do.
type mail struct {
	dialer
	conf *config.EmailConfig
	tmpl *template.Template
	log  *slog.Logger
}

// Notify implements notify.Notifier.
func (m mail) Notify(ctx context.Context, alerts ...*alert.Alert) (bool, error) {
	to := *m.conf
	host := to.Smarthost.Host
	ip, err := m.ip(ctx, host, to.Smarthost.Port)
	if err != nil {
		return true, fmt.Errorf("find mail server: %w", err)
	}
	settings := commoncfg.TLSConfig{}
	if to.TLSConfig != nil {
		settings = *to.TLSConfig
	}
	if settings.ServerName == "" {
		settings.ServerName = host
	}
	to.Smarthost.Host, to.TLSConfig = ip, &settings
	return email.New(&to, m.tmpl, m.log).Notify(ctx, alerts...)
}
