package stats

import (
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"perch/agent/cgroup"
)

// place is what a cgroup path says about itself.
type place struct {
	podUID      string
	containerID string
}

// locate reads ROOT/CLASS/podUID/CONTAINER.
func locate(root, p string) place {
	rest, below := strings.CutPrefix(p, root+"/")
	if !below {
		return place{}
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 2 || !strings.HasPrefix(parts[1], "pod") {
		return place{}
	}
	out := place{podUID: strings.TrimPrefix(parts[1], "pod")}
	if len(parts) > 2 {
		out.containerID = parts[2]
	}
	return out
}

// tracked is one cgroup that is watched.
type tracked struct {
	path   string
	place  place
	reader *cgroup.Reader
	ring   ring
	state  state
	above  *tracked // the cgroup it is in
	idle   bool     // nothing ran in it since the look before
	named  bool
	asked  int // how often nobody knew its name
	who    Identity
	series []series // of fastTable then specTable, once named
	fast   int      // how many of series are of fastTable
	rest   rest
	stale  bool // ended; markers go out with the next round
	endAt  time.Time
	first  bool  // nothing was sent yet
	sentAt int64 // ms

	missing   bool // was not found when cgroups were listed
	limitedAt time.Time
	counted   counted
	below     counts // of the cgroups in it, while they are summed up
	total     counts // its own and theirs
}

// dull says of a cgroup that nobody will ask for its numbers: a sandbox has no
// name. It is looked at now and then all the same.
func (t *tracked) dull() bool { return !t.named && t.asked >= 10 }

// limitsFor is how long the limits of a cgroup are taken for unchanged: they
// change only when a pod is resized.
const limitsFor = time.Minute

// limit reads the limits of the cgroup when it is time.
func (t *tracked) limit(tree cgroup.Tree, at time.Time) {
	if t.limitedAt.IsZero() || at.Sub(t.limitedAt) >= limitsFor {
		t.state.limits, t.limitedAt = tree.Limits(t.path), at
		t.reader.Limited(t.state.limits.CPUQuota > 0, t.state.limits.Memory > 0)
	}
}

// series is one row for one cgroup.
type series struct {
	id     uint64
	labels labels.Labels
	row    *row
	family *family
	sent   bool
}

// ownLabels are those kubelet shows for a cgroup.
func ownLabels(p string, who Identity) []string {
	return []string{
		"container", who.Container, "id", p, "image", who.Image, "name", who.ID,
		"namespace", who.Namespace, "pod", who.Pod,
	}
}

// targetLabels are those a scrape of kubelet would add.
func (s *Stats) targetLabels() []string {
	return []string{"job", "kubelet", "metrics_path", "/metrics/cadvisor", "instance", s.cfg.Instance, "node", s.cfg.Node}
}

// makeLabels builds a label set; empty values are left out.
func makeLabels(name string, lists ...[]string) labels.Labels {
	b := labels.NewScratchBuilder(16)
	b.Add(labels.MetricName, name)
	for _, l := range lists {
		for i := 0; i+1 < len(l); i += 2 {
			if l[i+1] != "" {
				b.Add(l[i], l[i+1])
			}
		}
	}
	b.Sort()
	return b.Labels()
}

// applies says whether a cgroup has the family at all.
func (f *family) applies(t *tracked) bool {
	switch f.scope {
	case withQuota:
		return t.state.limits.CPUQuota > 0
	case leaves:
		return t.place.containerID != ""
	case over:
		return t.state.exited && t.place.containerID != ""
	}
	return true
}

// name asks whose the cgroup is and builds its series. Cgroups above pods need
// no name; those of pods wait until the agent knows them.
func (s *Stats) name(t *tracked) bool {
	if t.named {
		return true
	}
	if t.place.podUID != "" {
		who, known := s.parts.Name(t.place.podUID, t.place.containerID)
		if !known {
			return false
		}
		if t.place.containerID == "" {
			who.Container, who.ID, who.Image = "", "", ""
		} else if who.ID == "" {
			who.ID = t.place.containerID
		}
		t.who = who
		if !who.Started.IsZero() {
			t.state.start = float64(who.Started.UnixMilli()) / 1e3
		}
	}
	t.named = true
	own, target := ownLabels(t.path, t.who), s.targetLabels()
	add := func(table []family) {
		for i := range table {
			f := &table[i]
			for k := range f.rows {
				s.lastID++
				t.series = append(t.series, series{
					id: s.lastID, labels: makeLabels(f.name, own, target, f.rows[k].pairs), row: &f.rows[k], family: f,
				})
			}
		}
	}
	add(s.fast)
	t.fast = len(t.series)
	add(s.spec)
	return true
}

// KubeletLabels are the labels kubelet shows for a cgroup, all of them, empty
// where the owner is not known.
func KubeletLabels(root, cgroupPath string, name func(podUID, containerID string) (Identity, bool)) map[string]string {
	where := locate(root, cgroupPath)
	var who Identity
	if where.podUID != "" {
		var known bool
		if who, known = name(where.podUID, where.containerID); known && where.containerID == "" {
			who.Container, who.ID, who.Image = "", "", ""
		} else if known && who.ID == "" {
			who.ID = where.containerID
		}
	}
	out := map[string]string{}
	list := ownLabels(cgroupPath, who)
	for i := 0; i+1 < len(list); i += 2 {
		out[list[i]] = list[i+1]
	}
	return out
}
