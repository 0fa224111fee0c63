package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	agentdoor "perch/agent/door"
	"perch/cmd/perch/daemon/door"
	"perch/controlplane/auth/pki"
	"perch/controlplane/auth/rbac"
	"perch/logs/replica"
	"perch/logs/ring"
	logstore "perch/logs/store"
)

// Every node's lines have one copy on another node. Each node keeps copies for
// others from its start on; it takes part in the ring, and ships its own lines,
// as soon as there is another node.

// openCopies keeps the copies that other nodes place here, and answers for them.
func (r role) openCopies(own *http.ServeMux) (*replica.Keeper, error) {
	id, err := replica.Identity(r.cfg.Path("logs"))
	if err != nil {
		return nil, err
	}
	cfg := replica.DefaultKeep(r.cfg.Path("log-copies"), r.cfg.Path("log-copies-open"))
	cfg.Store = id
	k, err := replica.NewKeeper(cfg, r.part("copies"), r.reg)
	if err != nil {
		return nil, err
	}
	r.group.Go("copies", k.Run)
	own.Handle(replica.Prefix, k.Ships())
	own.Handle(replica.ReadPrefix, k.Reads())
	return k, nil
}

// mayCopy lets a node write its own copy of lines only, and perch's servers, which
// ask for others within their rights, read all of them and have series kept;
// everything else is for next.
func mayCopy(next func(context.Context, user.Info, agentdoor.Attributes) (bool, string, error)) func(context.Context, user.Info, agentdoor.Attributes) (bool, string, error) {
	return func(ctx context.Context, who user.Info, what agentdoor.Attributes) (bool, string, error) {
		switch {
		case strings.HasPrefix(what.Path, replica.Prefix):
			owner, ok := replica.OwnerOf(what.Path)
			return ok && isNode(who, owner), "only a node itself sends its copy", nil
		case strings.HasPrefix(what.Path, replica.ReadPrefix):
			return who.GetName() == rbac.TelemetryUser, "copies are asked by perch's servers only", nil
		case strings.HasPrefix(what.Path, seriesPrefix):
			return who.GetName() == rbac.TelemetryUser, "series are kept and told for perch's servers only", nil
		}
		return next(ctx, who, what)
	}
}

func isNode(who user.Info, node string) bool {
	groups := strings.Join(who.GetGroups(), "\n")
	return who.GetName() == "system:node:"+node && strings.Contains("\n"+groups+"\n", "\nsystem:nodes\n")
}

// neighbours is what a machine has to know to take part in the ring.
type neighbours struct {
	Secret string   `json:"secret"`
	Seeds  []string `json:"seeds"` // addresses of gossip
}

const neighboursPath = "/perch/v1/neighbours"

// neighbourhood finds neighbours: on servers from Node objects, on others by
// asking the server. What was known last is kept in a file, so that lines have
// their copy also while no API server answers.
type neighbourhood struct {
	file  string
	first chan struct{} // closed once there is a neighbour

	mu    sync.Mutex // guards what follows
	met   bool
	last  neighbours
	saved bool // last is in the file
}

// openNeighbourhood begins with what file says; a server knows the secret better.
func openNeighbourhood(file, secret string) *neighbourhood {
	n := &neighbourhood{file: file, first: make(chan struct{})}
	var last neighbours
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &last) == nil {
		if n.saved = true; secret != "" && secret != last.Secret {
			last.Secret, n.saved = secret, false
		}
		n.learn(last)
	}
	return n
}

// told learns, and keeps what is new.
func (n *neighbourhood) told(now neighbours) error {
	now.Seeds = slices.Sorted(slices.Values(now.Seeds))
	n.mu.Lock()
	same := n.saved && n.last.Secret == now.Secret && slices.Equal(n.last.Seeds, now.Seeds)
	n.mu.Unlock()
	if same {
		return nil
	}
	n.learn(now)
	err := saveJSON(n.file, now)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.saved = err == nil
	return err
}

func (n *neighbourhood) learn(now neighbours) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = now
	if !n.met && now.Secret != "" && len(now.Seeds) > 0 {
		n.met = true
		close(n.first)
	}
}

func (n *neighbourhood) now() neighbours {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.last
}

// serveNeighbours tells the cluster's nodes of each other.
func (r role) serveNeighbours(web *door.Door, f informers.SharedInformerFactory) (*neighbourhood, error) {
	secret, err := ringSecret(r.cfg.Path("pki", "ring.secret"))
	if err != nil {
		return nil, err
	}
	n, log := openNeighbourhood(r.cfg.Path("neighbours.json"), secret), r.part("ring")
	nodes := f.Core().V1().Nodes()
	lister, known := nodes.Lister(), nodes.Informer().HasSynced
	look := func() {
		seeds := gossipOf(all(lister.List), r.cfg.NodeName)
		if len(seeds) == 0 && !known() {
			return // others are still to come
		}
		if err := n.told(neighbours{secret, seeds}); err != nil {
			log.Warn("neighbours were not kept", "err", err)
		}
	}
	changed := func(any) { look() }
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, _ any) { look() }, DeleteFunc: changed}); err != nil {
		return nil, fmt.Errorf("watch nodes: %w", err)
	}
	web.Handle("GET "+neighboursPath, door.Node, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := n.now()
		out.Seeds = append([]string{net.JoinHostPort(r.cfg.AdvertiseAddress.String(), strconv.Itoa(r.cfg.Gossip()))}, out.Seeds...)
		out.Secret = secret
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the asker is gone if this fails
	}))
	return n, nil
}

// gossipOf guesses where other nodes gossip: most use the same distance of ports,
// and one of them is enough.
func gossipOf(nodes []*corev1.Node, self string) (out []string) {
	for _, n := range nodes {
		if ip := internalIP(n); ip != "" && n.Name != self && n.Status.DaemonEndpoints.KubeletEndpoint.Port > 0 {
			out = append(out, net.JoinHostPort(ip, strconv.Itoa(int(n.Status.DaemonEndpoints.KubeletEndpoint.Port)+1)))
		}
	}
	return out
}

func internalIP(n *corev1.Node) string {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			return a.Address
		}
	}
	return ""
}

// ringSecret is made at a server's first start.
func ringSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if s := strings.TrimSpace(string(text)); err == nil && s != "" {
		return s, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read secret of the ring: %w", err)
	}
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("make secret of the ring: %w", err)
	}
	s := hex.EncodeToString(b[:])
	if err := pki.WriteFile(path, []byte(s+"\n")); err != nil {
		return "", fmt.Errorf("keep secret of the ring: %w", err)
	}
	return s, nil
}

// How often a worker asks who is there: until it knows, and then.
const (
	askNeighbours      = 5 * time.Second
	askNeighboursAgain = 10 * time.Minute
)

// findNeighbours asks the server.
func (r role) findNeighbours() (*neighbourhood, error) {
	client, err := r.nodeHTTP()
	if err != nil {
		return nil, err
	}
	n, log := openNeighbourhood(r.cfg.Path("neighbours.json"), ""), r.part("ring")
	ask := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var now neighbours
		if err := getJSON(ctx, client, r.cfg.Web+neighboursPath, &now); err != nil {
			return err
		}
		return n.told(now)
	}
	r.group.Go("neighbours", func(ctx context.Context) error {
		for {
			wait := askNeighboursAgain
			if err := ask(ctx); err != nil && ctx.Err() == nil {
				log.Debug("server did not tell the neighbours", "err", err)
				wait = askNeighbours
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
		}
	})
	return n, nil
}

func getJSON(ctx context.Context, client *http.Client, url string, to any) error {
	_, err := getJSONHead(ctx, client, url, to)
	return err
}

// getJSONHead also returns the header of the answer.
func getJSONHead(ctx context.Context, client *http.Client, url string, to any) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // read only
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: status %d", url, resp.StatusCode)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(to); err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	return resp.Header, nil
}

// nodeHTTP speaks HTTPS as this node to machines that may be dead. It is HTTP/1.1:
// frames of HTTP/2 made a copy of lines cost 0.35 instead of 0.24 of ingest.
func (r role) nodeHTTP() (*http.Client, error) {
	rc := &rest.Config{TLSClientConfig: nodeTLS(r.cfg)}
	rc.NextProtos = []string{"http/1.1"}
	return machineClient(rc)
}

// copyPath is where the telemetry role tells on its socket where this node's
// copy is, and whose copies are here.
const copyPath = "/perch/v1/logs/copy"

// copyStatus is the answer there.
type copyStatus struct {
	Own     replica.Status `json:"own"`
	Members []ring.Member  `json:"members"`
	Kept    []replica.Copy `json:"kept"`
}

// shipCopies takes part in the ring, which members is then, and keeps this node's
// copy at another, once there is a neighbour.
func (r role) shipCopies(own *http.ServeMux, lines *lines, n *neighbourhood, members *atomic.Pointer[ring.Ring]) error {
	client, err := r.nodeHTTP()
	if err != nil {
		return err
	}
	cfg := ring.Default()
	cfg.Node, cfg.Addr = r.cfg.NodeName, net.JoinHostPort(r.cfg.AdvertiseAddress.String(), strconv.Itoa(r.cfg.AgentPort))
	cfg.Advertise, cfg.Port = r.cfg.AdvertiseAddress, r.cfg.Gossip()
	cfg.Seeds = func() []string { return n.now().Seeds }
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = r.cfg.Path("ca.crt"), r.cfg.Path("pki", "node-serving.crt"), r.cfg.Path("pki", "node-serving.key")
	cfg.TokensFile = r.cfg.Path("ring-tokens.json")
	if r.cfg.SeriesStore {
		cfg.Sets = map[string]string{seriesSet: "store"}
	}
	type running struct {
		ring *ring.Ring
		ship *replica.Shipper
	}
	started := make(chan running, 1)
	r.group.Go("log copy", func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return nil
		case <-n.first:
		}
		cfg.Secret = n.now().Secret
		joined, err := ring.New(cfg, r.part("ring"), r.reg)
		if err != nil {
			return err
		}
		members.Store(joined)
		ship := replica.DefaultShip(r.cfg.NodeName, r.cfg.Path("logs"))
		ship.Keep = lines.kept
		s, err := replica.NewShipper(ship, lines.store.Files, func() (out []replica.Member) {
			for _, m := range joined.Followers(r.cfg.NodeName) {
				out = append(out, replica.Member{Node: m.Node, URL: "https://" + m.Addr})
			}
			return out
		}, client, r.part("copies"), r.reg)
		if err != nil {
			return err
		}
		started <- running{joined, s}
		var all sync.WaitGroup
		all.Go(func() { err = joined.Run(ctx) })
		shipErr := s.Run(ctx)
		all.Wait()
		return errors.Join(err, shipErr)
	})
	own.HandleFunc("GET "+copyPath, func(w http.ResponseWriter, req *http.Request) {
		out := copyStatus{Kept: lines.copies.Copies()}
		select {
		case now := <-started:
			started <- now
			out.Own = now.ship.Status()
			out.Members, _ = now.ring.Members(req.Context()) // those it knows; none while it does not run
		default:
			out.Own.Reason = "there is no other node"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the asker is gone if this fails
	})
	return nil
}

// keptFor is how long a store keeps the lines that it keeps longest; 0: for ever.
func keptFor(cfg logstore.Config) func() time.Duration {
	return func() time.Duration {
		if cfg.RetentionAge == 0 {
			return 0
		}
		longest := cfg.RetentionAge
		for _, own := range cfg.Namespaces() {
			longest = max(longest, own.Age)
		}
		return longest
	}
}
