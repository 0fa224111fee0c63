package stats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/value"

	"perch/agent/cgroup"
)

// Stats watches the cgroups of one node.
type Stats struct {
	cfg     Config
	parts   Parts
	log     *slog.Logger
	metrics *metrics
	tree    cgroup.Tree
	fast    []family
	spec    []family
	outbox  *outbox

	mu      sync.Mutex
	tracked map[string]*tracked
	order   []*tracked // tracked by path; nil when it must be made anew
	gone    []*tracked // ended, oldest first; rings only
	lastID  uint64
	sent    int       // samples of the last warm round
	last    time.Time // of the last round
	lists   map[string]listing
	machine rest // what is of no cgroup
	devices map[string]string

	proc proc
}

// New finds the cgroup layout; nothing is read yet.
func New(cfg Config, parts Parts, log *slog.Logger, reg prometheus.Registerer) (*Stats, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if parts.Name == nil || parts.Sink == nil || parts.Machine == nil {
		return nil, errors.New("build stats: Name, Sink and Machine are needed")
	}
	tree, err := cgroup.Detect(cfg.Mount)
	if err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	s := &Stats{
		cfg: cfg, parts: parts, log: log, metrics: m, tree: tree, fast: fastTable(), spec: specTable(),
		outbox: newOutbox(cfg.OutboxLimit, m), tracked: map[string]*tracked{}, lists: map[string]listing{}, devices: map[string]string{}, proc: newProc(cfg.Proc),
	}
	what, err := parts.Machine()
	if err != nil {
		return nil, err
	}
	s.setMachine(what)
	return s, nil
}

// Run reads and sends until ctx ends; then open files are closed.
func (s *Stats) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { s.outbox.run(ctx, s.parts.Sink) })
	parts.Go(func() { s.runRest(ctx) })
	for {
		// Rounds are at whole multiples of the interval, on every node at once.
		now := time.Now()
		select {
		case <-ctx.Done():
			parts.Wait()
			s.close()
			return nil
		case <-time.After(now.Truncate(s.cfg.Hot).Add(s.cfg.Hot).Sub(now)):
		}
		at := time.Now()
		s.Round(at.Truncate(s.cfg.Hot))
		s.metrics.round.Observe(time.Since(at).Seconds())
	}
}

// Round reads all cgroups once and queues what is due at that time; those that
// nobody told of are found at warm times. Run calls it; tests may.
func (s *Stats) Round(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	warm, cold := due(s.last, at, s.cfg.Warm), due(s.last, at, s.cfg.Cold)
	s.last = at
	if warm || len(s.tracked) == 0 {
		s.find(cold)
	}
	var batch []Sample
	if warm {
		batch = make([]Sample, 0, s.sent+s.sent/16)
	}
	for _, t := range s.inOrder() {
		if t.stale {
			if warm {
				batch = t.markers(batch, at)
				s.forget(t)
			}
			continue
		}
		if t.dull() && !cold && !t.missing {
			continue
		}
		if t.missing || t.read(warm, cold) != nil {
			batch = s.lost(t, at, batch)
			continue
		}
		t.keep(at, warm || t.first)
		if !s.name(t) {
			t.asked++
			continue
		}
		t.limit(s.tree, at)
		if warm || t.first {
			batch = t.samples(batch, at, cold || t.first)
		}
	}
	if cold {
		batch = s.machine.samples(batch, at.UnixMilli())
	}
	s.trim(at)
	s.metrics.watched.Set(float64(len(s.tracked)))
	if warm {
		s.sent = len(batch)
	}
	s.outbox.put(batch)
}

// due says whether a multiple of the interval is at this time, or was passed
// since the last round: on a crowded machine rounds are late.
func due(last, at time.Time, every time.Duration) bool {
	multiple := at.Truncate(every)
	return multiple.Equal(at) || !last.IsZero() && multiple.After(last)
}

// read brings the numbers of a cgroup up to date, all of them only at cold times.
// Between it saves what it can: where nothing happened in the cgroup above,
// nothing happened here. What ran since the last full read, if only for a second,
// is read in full at the warm round.
func (t *tracked) read(warm, cold bool) (err error) {
	use := &t.state.use
	t.idle = false
	switch p := t.above; {
	case t.dull():
		_, err = t.reader.Look(use) // is it there, does it run
	case cold || t.first || use.Has == 0 || warm && t.reader.Ran():
		err = t.reader.Read(use)
	case p != nil && !p.stale && p.idle:
		t.idle = true
	case warm:
		t.idle, err = t.reader.Refresh(use)
	default:
		t.idle, err = t.reader.Look(use)
	}
	return err
}

// find starts to follow cgroups that are new, and marks those that are gone.
// Unless it looks anew, it misses one that was made while another was removed and
// of which nobody told.
func (s *Stats) find(anew bool) {
	if anew {
		clear(s.lists)
	}
	live := s.live()
	if s.outdated(live) {
		live = s.live()
	}
	for p := range live {
		s.watch(p)
	}
	for p, t := range s.tracked {
		t.missing = !live[p]
	}
}

func (s *Stats) live() map[string]bool {
	paths := s.list()
	live := make(map[string]bool, len(paths))
	for _, p := range paths {
		live[p] = true
	}
	return live
}

// outdated drops the lists that lack a cgroup which is there.
func (s *Stats) outdated(live map[string]bool) (some bool) {
	for p := range s.tracked {
		if !live[p] && !s.tree.Created(p).IsZero() {
			delete(s.lists, path.Dir(p))
			some = true
		}
	}
	return some
}

// inOrder lists what is tracked, parents before their children.
func (s *Stats) inOrder() []*tracked {
	if s.order == nil {
		s.order = slices.SortedFunc(maps.Values(s.tracked), func(a, b *tracked) int { return strings.Compare(a.path, b.path) })
		for _, t := range s.order {
			t.above = s.tracked[path.Dir(t.path)]
		}
	}
	return s.order
}

// Started takes the first sample of a cgroup now; the agent calls it when the
// process runs, so that no container is too short to be seen.
func (s *Stats) Started(cgroupPath string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch(path.Dir(cgroupPath))
	s.watch(cgroupPath)
	t := s.tracked[cgroupPath]
	if t == nil || t.stale || t.reader.Read(&t.state.use) != nil {
		return
	}
	now := time.Now()
	t.keep(now, true)
	if t.first && s.name(t) {
		t.limit(s.tree, now)
		s.outbox.put(t.samples(nil, now, true))
	}
}

// Ended takes the last sample of a container; the agent calls it before the
// cgroup is removed. The series end with the next round.
func (s *Stats) Ended(cgroupPath string, exit Exit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch(cgroupPath)
	t := s.tracked[cgroupPath]
	if t == nil {
		return
	}
	now := time.Now()
	told := t.state.exited
	t.state.exited, t.state.code = true, exit.Code
	if exit.OOMKilled && t.state.oom == 0 {
		t.oomKilled()
	}
	if t.stale { // its cgroup was gone before the runtime told why
		if !told && t.named {
			s.outbox.put(t.samples(nil, now, true))
		}
		return
	}
	use := t.state.use
	if t.reader.Read(&use) == nil {
		t.state.use = use
		t.keep(now, true)
	} else {
		s.metrics.late.Inc()
	}
	if exit.OOMKilled {
		t.oomKilled() // what was read knows of it or not
	}
	s.outbox.put(s.end(t, now, nil))
}

// oomKilled counts a kill that only the runtime knows of.
func (t *tracked) oomKilled() {
	t.state.oom = max(1, t.state.use.Memory.OOMKills)
	t.state.use.Has |= cgroup.HasOOM
}

// lost ends a cgroup that was removed without Ended: the last numbers read are
// its last numbers.
func (s *Stats) lost(t *tracked, at time.Time, batch []Sample) []Sample {
	if t.place.containerID != "" {
		s.metrics.late.Inc()
	}
	return s.end(t, at, batch)
}

func (s *Stats) end(t *tracked, at time.Time, batch []Sample) []Sample {
	t.stale, t.endAt = true, at
	t.reader.Close()
	s.metrics.ended.Inc()
	if s.name(t) && t.state.use.Has != 0 {
		batch = t.samples(batch, at, true)
	}
	return batch
}

// watch starts to follow a path that is not followed yet.
func (s *Stats) watch(p string) {
	if s.tracked[p] != nil {
		return
	}
	if len(s.tracked) >= s.cfg.CgroupLimit {
		s.metrics.refused.Inc()
		return
	}
	r, err := s.tree.Open(p)
	if err != nil {
		if !errors.Is(err, cgroup.ErrGone) {
			s.metrics.refused.Inc()
		}
		return
	}
	t := &tracked{
		path: p, place: locate(s.cfg.Root, p), reader: r, first: true,
		ring: ring{size: int(s.cfg.RingSpan / s.cfg.Hot)},
	}
	t.state.made = float64(s.tree.Created(p).UnixMilli()) / 1e3
	t.state.start = t.state.made
	t.state.limits.CPUQuota = -1
	s.tracked[p], s.order = t, nil
}

// list walks the machine's root, ours, classes, pods and containers.
func (s *Stats) list() []string {
	out := []string{"/"}
	if !s.exists() {
		return out
	}
	out = append(out, s.cfg.Root)
	level := []string{s.cfg.Root}
	for range 3 {
		var next []string
		for _, p := range level {
			next = append(next, s.children(p)...)
		}
		out = append(out, next...)
		level = next
	}
	return out
}

// listing is what was below a cgroup when it had so many links.
type listing struct {
	links    uint64
	children []string
}

func (s *Stats) children(p string) []string {
	links := s.tree.Links(p)
	if l, known := s.lists[p]; known && links != 0 && l.links == links {
		return l.children
	}
	children, err := s.tree.Children(p)
	if err != nil {
		return nil // removed meanwhile; the next round lists anew
	}
	s.lists[p] = listing{links, children}
	return children
}

func (s *Stats) exists() bool { return !s.tree.Created(s.cfg.Root).IsZero() }

// keep adds what was read to the ring; whole: not only what Look reads.
func (t *tracked) keep(at time.Time, whole bool) {
	t.state.seen = float64(at.UnixMilli()) / 1e3
	t.state.peak = max(t.state.peak, t.state.use.Memory.Usage)
	t.ring.add(pointOf(at, &t.state.use, whole))
}

// setBack tells a clock that was set back from two samples at nearly one time.
// What is sent again for a time that had samples, the store takes or counts.
const setBack = 5000 // ms

// samples adds the fast series and, when asked, those of the specification.
func (t *tracked) samples(batch []Sample, at time.Time, spec bool) []Sample {
	ms := at.UnixMilli()
	if ms <= t.sentAt && t.sentAt-ms < setBack {
		return batch // Started or Ended came in between
	}
	t.first, t.sentAt = false, ms
	list := t.series
	if !spec {
		list = list[:t.fast]
	}
	for i := range list {
		x := &list[i]
		if t.state.use.Has&x.row.has != x.row.has || !x.family.applies(t) {
			continue
		}
		x.sent = true
		batch = append(batch, Sample{x.id, x.labels, ms, x.row.value(&t.state)})
	}
	if spec {
		batch = t.rest.samples(batch, ms)
	}
	return batch
}

// markers end the series that were sent.
func (t *tracked) markers(batch []Sample, at time.Time) []Sample {
	ms := max(at.UnixMilli(), t.sentAt+1)
	for i := range t.series {
		if x := &t.series[i]; x.sent {
			batch = append(batch, Sample{x.id, x.labels, ms, math.Float64frombits(value.StaleNaN)})
		}
	}
	return t.rest.markers(batch, ms)
}

// forget keeps of an ended cgroup only what recorder and page ask for.
func (s *Stats) forget(t *tracked) {
	delete(s.tracked, t.path)
	s.order, t.series, t.rest = nil, nil, rest{}
	if t.place.containerID != "" {
		s.gone = append(s.gone, t)
	}
}

// trim drops rings of cgroups that ended long ago or are too many.
func (s *Stats) trim(at time.Time) {
	n := max(0, len(s.gone)-s.cfg.EndedLimit)
	for n < len(s.gone) && at.Sub(s.gone[n].endAt) > s.cfg.RingSpan {
		n++
	}
	clear(s.gone[:n])
	s.gone = s.gone[n:]
}

func (s *Stats) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracked {
		if !t.stale {
			t.reader.Close()
		}
	}
	clear(s.tracked)
	s.order = nil
}

// PathOf is where the cgroup of a container must be.
func (s *Stats) PathOf(class, podUID, containerID string) string {
	return path.Join(s.cfg.Root, class, "pod"+podUID, containerID)
}

// Use is the newest reading of a cgroup, with its time.
func (s *Stats) Use(cgroupPath string) (cgroup.Use, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tracked[cgroupPath]
	if t == nil || t.state.use.Has == 0 {
		return cgroup.Use{}, time.Time{}, fmt.Errorf("read use of cgroup %s: %w", cgroupPath, cgroup.ErrGone)
	}
	return t.state.use, time.UnixMilli(int64(t.state.seen * 1e3)), nil
}
