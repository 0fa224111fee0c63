package store

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	etcdfeature "k8s.io/apiserver/pkg/storage/feature"
	"k8s.io/utils/clock"
)

// ErrLocked says that another process holds the directory.
var ErrLocked = errors.New("the directory is in use by another process")

// ErrNewer says that a newer perch wrote the directory.
var ErrNewer = errors.New("the data was written by a newer version")

// format is the layout of the directory; Open refuses a larger number.
const format = 1

// startWithin bounds the wait for the member to serve. Replaying a large log
// takes seconds, not minutes.
const startWithin = 2 * time.Minute

// Store is a running etcd member.
type Store struct {
	cfg       Config
	etcd      *embed.Etcd
	client    *clientv3.Client
	compactor interface {
		etcd3.Compactor
		Stop()
	}
	lock      *os.File
	closeOnce sync.Once
}

// Open starts the member and returns when it serves reads and writes. It fails
// with ErrLocked or ErrNewer when the directory cannot be used.
func Open(cfg Config, log *slog.Logger, reg prometheus.Registerer) (_ *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	s := &Store{cfg: cfg}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	defer func() {
		if err != nil {
			_ = s.lock.Close() // nothing was written through it
		}
	}()
	if err := checkFormat(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	ec, err := etcdConfig(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	if s.etcd, err = embed.StartEtcd(ec); err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	if err := s.waitReady(); err != nil {
		s.etcd.Close()
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	s.client = v3client.New(s.etcd.Server)
	if err := s.moveMember(); err != nil {
		s.etcd.Close()
		return nil, fmt.Errorf("open store %s: %w", cfg.Dir, err)
	}
	// The in-process client has no endpoints, so the API server would never learn
	// that this etcd can report watch progress, would bypass its watch cache for
	// consistent reads, and watches would fail with "Too large resource version".
	etcdfeature.DefaultFeatureSupportChecker.CheckClient(context.Background(), inProcess{s.client}, storage.RequestWatchProgress)
	s.compactor = etcd3.NewCompactor(s.client, cfg.CompactEvery, clock.RealClock{}, nil)
	registerMetrics(reg, s)
	return s, nil
}

// inProcess gives the in-process client the one endpoint the checker asks for.
type inProcess struct{ *clientv3.Client }

// Endpoints names the only member a client of this process can talk to.
func (inProcess) Endpoints() []string { return []string{"in-process"} }

func etcdConfig(cfg Config, log *slog.Logger) (*embed.Config, error) {
	ec := embed.NewConfig()
	ec.Name, ec.Dir = cfg.Name, filepath.Join(cfg.Dir, "member")
	ec.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(slogCore{log: log}))
	ec.QuotaBackendBytes = cfg.QuotaBytes
	ec.UnsafeNoFsync = cfg.UnsafeNoSync
	ec.WatchProgressNotifyInterval = 5 * time.Second
	// etcd's own tick, which is most of what a member does when idle. A single
	// member elects itself: the shortest election that etcd allows saves 150 ms of
	// its default at each start.
	ec.TickMs, ec.ElectionMs = 100, 500
	ec.ListenClientUrls, ec.AdvertiseClientUrls = nil, []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	ec.ListenClientHttpUrls = nil

	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"} // a name only, nobody listens there
	ec.ListenPeerUrls = nil
	if cfg.hasPeerDoor() {
		u, err := url.Parse(cfg.PeerURL)
		if err != nil {
			return nil, fmt.Errorf("parse peer URL %q: %w", cfg.PeerURL, err)
		}
		peer = *u
		listen := url.URL{Scheme: "https", Host: u.Host}
		if cfg.ListenPeer != "" {
			listen.Host = cfg.ListenPeer
		}
		ec.ListenPeerUrls = []url.URL{listen}
		own, err := commonName(cfg.PeerCert)
		if err != nil {
			return nil, err
		}
		// The CA also signs nodes and people: only what is named as this member
		// is one.
		ec.PeerTLSInfo = transport.TLSInfo{
			CertFile: cfg.PeerCert, KeyFile: cfg.PeerKey, TrustedCAFile: cfg.PeerCA,
			ClientCertFile: cfg.PeerCert, ClientKeyFile: cfg.PeerKey, ClientCertAuth: true, AllowedCNs: []string{own},
		}
	}
	ec.AdvertisePeerUrls = []url.URL{peer}
	ec.InitialCluster = cfg.Name + "=" + peer.String()
	ec.InitialClusterToken = "perch"
	return ec, nil
}

func commonName(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read peer certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return "", fmt.Errorf("read peer certificate %s: no PEM block", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read peer certificate %s: %w", file, err)
	}
	if cert.Subject.CommonName == "" {
		return "", fmt.Errorf("read peer certificate %s: it has no common name", file)
	}
	return cert.Subject.CommonName, nil
}

func (s *Store) waitReady() error {
	limit := time.NewTimer(startWithin)
	defer limit.Stop()
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case err := <-s.etcd.Err():
		return err
	case <-s.etcd.Server.StopNotify():
		return errors.New("etcd stopped while it started")
	case <-limit.C:
		return fmt.Errorf("etcd was not ready within %s", startWithin)
	}
}

// moveMember tells the cluster this member's address when it changed since the
// last start.
func (s *Store) moveMember() error {
	if !s.cfg.hasPeerDoor() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	members, err := s.client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	for _, m := range members.Members {
		if m.ID != uint64(s.etcd.Server.MemberID()) || slices.Equal(m.PeerURLs, []string{s.cfg.PeerURL}) {
			continue
		}
		if _, err := s.client.MemberUpdate(ctx, m.ID, []string{s.cfg.PeerURL}); err != nil {
			return fmt.Errorf("update member %s: %w", m.Name, err)
		}
	}
	return nil
}

// Client talks to the member without a socket. It is shared; do not close it.
func (s *Store) Client() *clientv3.Client { return s.client }

// Compactor reports the revision up to which history was dropped.
func (s *Store) Compactor() etcd3.Compactor { return s.compactor }

// Run returns when ctx ends, or with an error when the member stops by itself.
func (s *Store) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.etcd.Err():
		return fmt.Errorf("run store %s: %w", s.cfg.Dir, err)
	case <-s.etcd.Server.StopNotify():
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("run store %s: etcd stopped by itself", s.cfg.Dir)
	}
}

// Snapshot writes a copy of the whole database, taken at one revision, in
// etcd's own snapshot format: the file, then its SHA-256.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	snap := s.etcd.Server.Backend().Snapshot()
	defer func() { _ = snap.Close() }() // read only
	sum := sha256.New()
	if _, err := snap.WriteTo(io.MultiWriter(ctxWriter{ctx, w}, sum)); err != nil {
		return fmt.Errorf("snapshot store %s: %w", s.cfg.Dir, err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("snapshot store %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// ctxWriter ends a long copy when its context ends.
type ctxWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c ctxWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// Close stops the member and frees the directory. Everything that uses Client
// must have stopped. It may be called more than once.
func (s *Store) Close(context.Context) error {
	s.closeOnce.Do(func() {
		s.compactor.Stop()
		s.etcd.Close()
		_ = s.lock.Close() // frees the lock; nothing was written through it
	})
	return nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

func checkFormat(dir string) error {
	name := filepath.Join(dir, "format")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return os.WriteFile(name, []byte(strconv.Itoa(format)+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read format of the data: %w", err)
	}
	if n > format {
		return fmt.Errorf("%w (format %d, this program knows %d)", ErrNewer, n, format)
	}
	return nil
}
