package autoscale

import (
	"fmt"
	"math"
	"time"
)

// Pod is what the rules need to know of a pod of the target.
type Pod struct {
	Name         string
	Pending      bool
	Gone         bool // being deleted, or failed: it does not count at all
	Started      time.Time
	Ready        bool
	ReadyKnown   bool // there is a Ready condition
	ReadyChanged time.Time
	Request      int64 // of the resource, in thousandths of its unit; 0 when a container has none
	RequestError string
}

// Goal is one metric a target is held to.
type Goal struct {
	Resource    string // "cpu", "memory" or the name of an application's metric
	Container   string // only this container's numbers; empty for the whole pod
	Utilization int32  // percent of the request; 0 when Average is the goal
	Average     int64  // thousandths of the unit per pod
}

// Timing of readiness, as in Kubernetes.
type Timing struct {
	CPUInitialization time.Duration // cpu of a pod this young counts only while it is ready
	InitialReadiness  time.Duration // a pod first ready later than this after its start was never ready before
	Window            time.Duration // the numbers' own window
}

// Proposal is the number of replicas one metric asks for, with the numbers used.
type Proposal struct {
	Replicas    int32
	Utilization int32 // percent; 0 when the goal is an average
	Average     int64 // thousandths per pod; of a metric with a value as its goal, thousandths in all
	IsAverage   bool  // Average of an Object or External metric is per replica
	Reason      string
	Err         error
}

// Tolerance is how far from its goal a ratio may be before something is done.
type Tolerance struct{ Up, Down float64 }

func (t Tolerance) within(ratio float64) bool { return 1-t.Down <= ratio && ratio <= 1+t.Up }

// sorted pods by what is known of them.
type groups struct {
	counted          map[string]float64 // usage by pod
	unready, missing []Pod
}

func group(now time.Time, goal Goal, pods []Pod, usage map[string]float64, timing Timing) groups {
	g := groups{counted: map[string]float64{}}
	for _, p := range pods {
		used, measured := usage[p.Name]
		switch {
		case p.Gone:
		case p.Pending:
			g.unready = append(g.unready, p)
		case !measured:
			g.missing = append(g.missing, p)
		case goal.Resource == "cpu" && unready(now, p, timing):
			g.unready = append(g.unready, p)
		default:
			g.counted[p.Name] = used
		}
	}
	return g
}

// unready answers whether a pod's cpu says nothing yet: it is starting up.
func unready(now time.Time, p Pod, timing Timing) bool {
	if !p.ReadyKnown || p.Started.IsZero() {
		return true
	}
	if p.Started.Add(timing.CPUInitialization).After(now) {
		return !p.Ready || now.Before(p.ReadyChanged.Add(timing.Window))
	}
	return !p.Ready && p.Started.Add(timing.InitialReadiness).After(p.ReadyChanged)
}

// Propose applies Kubernetes' rules to one metric: pods without numbers count as
// idle when scaling out and as full when scaling in, starting pods count as idle,
// and neither may turn the direction round.
func Propose(now time.Time, goal Goal, current int32, pods []Pod, usage map[string]float64, tolerance Tolerance, timing Timing) Proposal {
	requests := map[string]int64{}
	for _, p := range pods {
		requests[p.Name] = p.Request
		if goal.Utilization > 0 && !p.Gone && p.RequestError != "" {
			return Proposal{Err: fmt.Errorf("%s", p.RequestError)}
		}
	}
	g := group(now, goal, pods, usage, timing)
	if len(g.counted) == 0 {
		return Proposal{Err: fmt.Errorf("no %s numbers of ready pods (%d pods starting, %d without numbers)", goal.Resource, len(g.unready), len(g.missing))}
	}
	ready := len(g.counted)
	ratio := goal.ratio(g.counted, requests)
	out := goal.describe(g.counted, requests, ratio, timing.Window)
	upWithUnready := len(g.unready) > 0 && ratio > 1
	if !upWithUnready && len(g.missing) == 0 {
		out.Replicas = current
		if !tolerance.within(ratio) {
			out.Replicas = ceil(ratio * float64(ready))
		}
		return out
	}
	for _, p := range g.missing {
		switch {
		case ratio > 1:
			g.counted[p.Name] = 0
		case ratio < 1 && goal.Utilization > 0:
			g.counted[p.Name] = float64(p.Request) * float64(max(100, goal.Utilization)) / 100
		case ratio < 1:
			g.counted[p.Name] = float64(goal.Average)
		}
	}
	if upWithUnready {
		for _, p := range g.unready {
			g.counted[p.Name] = 0
		}
	}
	out.Replicas = current
	careful := goal.ratio(g.counted, requests)
	if tolerance.within(careful) || (ratio < 1 && careful > 1) || (ratio > 1 && careful < 1) {
		return out
	}
	wanted := ceil(careful * float64(len(g.counted)))
	if (careful < 1 && wanted > current) || (careful > 1 && wanted < current) {
		return out
	}
	out.Replicas = wanted
	return out
}

// ratio of use to goal over the given pods.
func (g Goal) ratio(usage map[string]float64, requests map[string]int64) float64 {
	var used, asked float64
	for name, v := range usage {
		used += v
		asked += float64(requests[name])
	}
	if g.Utilization > 0 {
		if asked == 0 {
			return 1
		}
		return float64(int64(used*100/asked)) / float64(g.Utilization)
	}
	return used / (float64(g.Average) * float64(len(usage)))
}

func (g Goal) describe(usage map[string]float64, requests map[string]int64, ratio float64, window time.Duration) Proposal {
	var used, asked float64
	for name, v := range usage {
		used += v
		asked += float64(requests[name])
	}
	out := Proposal{Average: int64(used) / int64(len(usage))}
	name := g.Resource
	if g.Container != "" {
		name += " of container " + g.Container
	}
	pods := fmt.Sprintf("%d pods", len(usage))
	if len(usage) == 1 {
		pods = "1 pod"
	}
	if g.Resource == "cpu" {
		pods += fmt.Sprintf(" over %.0fs", window.Seconds())
	}
	if g.Utilization > 0 {
		if asked > 0 {
			out.Utilization = int32(used * 100 / asked)
		}
		out.Reason = fmt.Sprintf("%s %d%% of request %s target %d%% from %s (%s of %s)", name, out.Utilization, side(ratio), g.Utilization, pods, amount(g.Resource, used, false), amount(g.Resource, asked, true))
		return out
	}
	out.Reason = fmt.Sprintf("%s %s per pod %s target %s from %s", name, amount(g.Resource, float64(out.Average), true), side(ratio), amount(g.Resource, float64(g.Average), true), pods)
	return out
}

func side(ratio float64) string {
	switch {
	case ratio > 1:
		return "over"
	case ratio < 1:
		return "under"
	}
	return "at"
}

// amount prints thousandths of a unit for people.
func amount(resource string, thousandths float64, unit bool) string {
	if resource == "cpu" {
		out := fmt.Sprintf("%.3g", thousandths/1000)
		if unit {
			out += " cores"
		}
		return out
	}
	if resource != "memory" {
		return milli(thousandths)
	}
	return fmt.Sprintf("%.0fMi", thousandths/1000/(1<<20))
}

func ceil(v float64) int32 { return int32(min(math.Ceil(v), math.MaxInt32)) }
