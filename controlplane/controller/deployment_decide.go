package controller

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
)

// The annotations kubectl rollout reads.
const (
	revisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	desiredAnnotation         = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation             = "deployment.kubernetes.io/max-replicas"
	lastAppliedAnnotation     = "kubectl.kubernetes.io/last-applied-configuration"
	rollbackAnnotation        = "deprecated.deployment.rollback.to"
)

// rollout is a snapshot of one Deployment and what belongs to it.
type rollout struct {
	Deployment *appsv1.Deployment
	Sets       []*appsv1.ReplicaSet
	OldPods    int // pods of old sets that have not ended; asked for by Recreate only
}

// rolloutPlan is the next step of a rollout. Each step is seen again before the
// one after it, so at most one kind of change to ReplicaSets happens at a time.
type rolloutPlan struct {
	Create      *appsv1.ReplicaSet   // the set of the present template
	Update      []*appsv1.ReplicaSet // changed copies: scaled, revised
	Delete      []*appsv1.ReplicaSet // beyond the history limit
	Revision    string               // for the Deployment's annotation
	Status      appsv1.DeploymentStatus
	Events      []happening
	Again       time.Duration // when the progress deadline must be judged
	createdCond bool
}

type happening struct{ Type, Reason, Message string }

// decideRollout names the next step from what a Deployment has to what it wants.
func decideRollout(now time.Time, have rollout) rolloutPlan {
	d := have.Deployment
	sets := slices.SortedFunc(slices.Values(have.Sets), older)
	current := presentSet(d, sets)
	plan := rolloutPlan{Status: *d.Status.DeepCopy(), Revision: d.Annotations[revisionAnnotation]}
	if d.DeletionTimestamp != nil {
		plan.Status = rolloutStatus(now, d, sets, current, plan.Status.Conditions)
		return plan
	}
	plan.Status.Conditions = pauseConditions(now, d, plan.Status.Conditions)
	switch {
	case d.Spec.Paused, resized(d, sets):
		current = plan.revise(now, d, sets, current, false)
		plan.scale(d, replaced(sets, current), current)
		plan.Status = rolloutStatus(now, d, sets, current, plan.Status.Conditions)
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		plan.recreate(now, d, sets, current, have.OldPods)
		plan.progress(now, d, sets, current)
	default:
		plan.roll(now, d, sets, current)
		plan.progress(now, d, sets, current)
	}
	plan.Update = lastOfEach(plan.Update)
	return plan
}

// roll replaces old pods by new ones within maxSurge and maxUnavailable.
func (p *rolloutPlan) roll(now time.Time, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) {
	current = p.revise(now, d, sets, current, true)
	if p.Create != nil {
		return
	}
	want := newSetSize(d, sets, current)
	if replicasOr1(current.Spec.Replicas) != want {
		p.resize(d, current, want)
		return
	}
	p.shrinkOld(d, sets, current)
	p.forget(d, sets, current)
}

// recreate ends all old pods before it makes new ones.
func (p *rolloutPlan) recreate(now time.Time, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet, oldPods int) {
	waiting := false
	for _, set := range others(sets, current) {
		if replicasOr1(set.Spec.Replicas) > 0 {
			p.resize(d, set, 0)
			waiting = true
		}
	}
	if waiting || oldPods > 0 {
		p.revise(now, d, sets, current, false)
		return
	}
	current = p.revise(now, d, sets, current, true)
	if p.Create != nil {
		return
	}
	if want := replicasOr1(d.Spec.Replicas); replicasOr1(current.Spec.Replicas) != want {
		p.resize(d, current, want)
		return
	}
	p.forget(d, sets, current)
}

// revise numbers the present set and keeps its notes current, or makes it.
func (p *rolloutPlan) revise(now time.Time, d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet, mayCreate bool) *appsv1.ReplicaSet {
	var highest int64
	for _, set := range others(sets, current) {
		highest = max(highest, revisionOf(set))
	}
	next := strconv.FormatInt(highest+1, 10)
	if current != nil {
		fresh := current.DeepCopy()
		noteDeployment(d, fresh, next, false)
		fresh.Spec.MinReadySeconds = d.Spec.MinReadySeconds
		if !apiequality.Semantic.DeepEqual(fresh, current) {
			p.Update = append(p.Update, fresh)
		}
		p.Revision = fresh.Annotations[revisionAnnotation]
		if d.Spec.ProgressDeadlineSeconds != nil && findCondition(p.Status.Conditions, appsv1.DeploymentProgressing) == nil {
			p.Status.Conditions = setCondition(p.Status.Conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionTrue,
				"FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", current.Name)))
		}
		return fresh
	}
	if !mayCreate {
		return nil
	}
	p.Create = newSet(d, next)
	size := newSetSize(d, append(slices.Clone(sets), p.Create), p.Create)
	p.Create.Spec.Replicas = &size
	p.Revision = next
	p.Events = append(p.Events, happening{"Normal", "ScalingReplicaSet", fmt.Sprintf("Scaled up replica set %s from 0 to %d", p.Create.Name, size)})
	if d.Spec.ProgressDeadlineSeconds != nil {
		p.createdCond = true
		p.Status.Conditions = setCondition(p.Status.Conditions, condition(now, appsv1.DeploymentProgressing, corev1.ConditionTrue,
			"NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", p.Create.Name)))
	}
	return p.Create
}

// shrinkOld takes from old sets what availability allows: first pods that are not
// available anyway, then available ones that new pods have replaced.
func (p *rolloutPlan) shrinkOld(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) {
	old := others(sets, current)
	if specSum(old) == 0 {
		return
	}
	_, unavailable := surgeAndUnavailable(d)
	keep := replicasOr1(d.Spec.Replicas) - unavailable
	notYet := replicasOr1(current.Spec.Replicas) - current.Status.AvailableReplicas
	may := specSum(sets) - keep - notYet
	if may <= 0 {
		return
	}
	size := map[string]int32{}
	var taken int32
	for _, set := range old {
		have := replicasOr1(set.Spec.Replicas)
		idle := min(have-set.Status.AvailableReplicas, may-taken)
		size[set.Name] = have
		if idle > 0 {
			size[set.Name], taken = have-idle, taken+idle
		}
	}
	var available int32
	for _, set := range sets {
		// A set that was just made smaller still counts pods it is about to lose.
		available += min(set.Status.AvailableReplicas, replicasOr1(set.Spec.Replicas))
	}
	spare := min(available-keep, may-taken)
	for _, set := range old {
		take := min(size[set.Name], spare)
		if take > 0 {
			size[set.Name], spare = size[set.Name]-take, spare-take
		}
		if size[set.Name] != replicasOr1(set.Spec.Replicas) {
			p.resize(d, set, size[set.Name])
		}
	}
}

// scale spreads a new size over the sets when no rollout step may be taken:
// during a pause, or when the user scales in the middle of a rollout.
func (p *rolloutPlan) scale(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) {
	want := replicasOr1(d.Spec.Replicas)
	active := slices.DeleteFunc(slices.Clone(sets), func(s *appsv1.ReplicaSet) bool { return replicasOr1(s.Spec.Replicas) == 0 })
	if len(active) <= 1 {
		target := latest(current, sets)
		if len(active) == 1 {
			target = active[0]
		}
		if target != nil {
			p.resize(d, target, want)
		}
		return
	}
	if current != nil && replicasOr1(current.Spec.Replicas) == want && current.Status.AvailableReplicas == want &&
		current.Annotations[desiredAnnotation] == strconv.Itoa(int(want)) {
		for _, set := range others(active, current) {
			p.resize(d, set, 0)
		}
		return
	}
	for set, size := range proportions(d, active) {
		p.resize(d, set, size)
	}
}

// proportions shares the change of size by the sets' present sizes; what rounding
// leaves over goes to the largest.
func proportions(d *appsv1.Deployment, active []*appsv1.ReplicaSet) map[*appsv1.ReplicaSet]int32 {
	have := specSum(active)
	surge, _ := surgeAndUnavailable(d)
	var allowed int32
	if replicasOr1(d.Spec.Replicas) > 0 {
		allowed = replicasOr1(d.Spec.Replicas) + surge
	}
	toShare := allowed - have
	bySize := slices.SortedStableFunc(slices.Values(active), func(a, b *appsv1.ReplicaSet) int {
		tie := older(a, b)
		if toShare > 0 {
			tie = older(b, a) // newer first when growing
		}
		return cmp.Or(cmp.Compare(replicasOr1(b.Spec.Replicas), replicasOr1(a.Spec.Replicas)), tie)
	})
	out, left := map[*appsv1.ReplicaSet]int32{}, toShare
	for _, set := range bySize {
		size := replicasOr1(set.Spec.Replicas)
		out[set] = size
		if toShare == 0 {
			continue
		}
		before := have // the maximum the set was sized for
		if noted, err := strconv.ParseInt(set.Annotations[maxAnnotation], 10, 32); err == nil && noted > 0 {
			before = int32(noted)
		}
		share := int32(math.Round(float64(size)*float64(allowed)/float64(before))) - size
		if toShare > 0 {
			share = min(max(share, 0), left)
		} else {
			share = max(min(share, 0), left)
		}
		out[set], left = size+share, left-share
	}
	if len(bySize) > 0 {
		out[bySize[0]] = max(0, out[bySize[0]]+left)
	}
	return out
}

// resize adds a set with another size to the plan, with its event.
func (p *rolloutPlan) resize(d *appsv1.Deployment, set *appsv1.ReplicaSet, size int32) {
	fresh := set.DeepCopy()
	if !noteSize(d, fresh) && replicasOr1(set.Spec.Replicas) == size {
		return
	}
	if have := replicasOr1(set.Spec.Replicas); have != size {
		verb := "up"
		if size < have {
			verb = "down"
		}
		p.Events = append(p.Events, happening{"Normal", "ScalingReplicaSet", fmt.Sprintf("Scaled %s replica set %s from %d to %d", verb, set.Name, have, size)})
	}
	fresh.Spec.Replicas = &size
	p.Update = append(p.Update, fresh)
}

// lastOfEach leaves one update per set: the last, which was made from those before it.
func lastOfEach(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, set := range sets {
		if i := slices.IndexFunc(out, func(s *appsv1.ReplicaSet) bool { return s.Name == set.Name }); i >= 0 {
			out[i] = set
		} else {
			out = append(out, set)
		}
	}
	return out
}

func replaced(sets []*appsv1.ReplicaSet, fresh *appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	out := slices.Clone(sets)
	for i, set := range out {
		if fresh != nil && set.Name == fresh.Name {
			out[i] = fresh
		}
	}
	return out
}

// forget removes empty old sets beyond the history limit once the rollout is complete.
func (p *rolloutPlan) forget(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) {
	status := rolloutStatus(time.Time{}, d, sets, current, nil)
	if !complete(d, status) || d.Spec.RevisionHistoryLimit == nil {
		return
	}
	var ended []*appsv1.ReplicaSet
	for _, set := range others(sets, current) {
		if set.DeletionTimestamp == nil && set.Status.Replicas == 0 && replicasOr1(set.Spec.Replicas) == 0 && set.Status.ObservedGeneration >= set.Generation {
			ended = append(ended, set)
		}
	}
	slices.SortFunc(ended, func(a, b *appsv1.ReplicaSet) int {
		return cmp.Or(cmp.Compare(revisionOf(a), revisionOf(b)), older(a, b))
	})
	if excess := len(ended) - int(*d.Spec.RevisionHistoryLimit); excess > 0 {
		p.Delete = ended[:excess]
	}
}

// newSet makes the ReplicaSet of the present template, without a size.
func newSet(d *appsv1.Deployment, revision string) *appsv1.ReplicaSet {
	hash := templateHash(&d.Spec.Template, d.Status.CollisionCount)
	template := *d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
	noteDeployment(d, set, revision, true)
	noteSize(d, set)
	return set
}

// presentSet finds the oldest set with the Deployment's template.
func presentSet(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	want := bare(&d.Spec.Template)
	for _, set := range sets {
		if apiequality.Semantic.DeepEqual(bare(&set.Spec.Template), want) {
			return set
		}
	}
	return nil
}

func bare(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	t := template.DeepCopy()
	delete(t.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return t
}

// templateHash is stable for equal templates; collisions changes it when the name is taken.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	data, err := json.Marshal(bare(template))
	if err != nil {
		panic("BUG: pod template cannot be encoded: " + err.Error())
	}
	_, _ = h.Write(data) // a hash does not fail
	if collisions != nil {
		_, _ = fmt.Fprint(h, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// noteDeployment copies the Deployment's annotations to its present set and gives it a revision.
func noteDeployment(d *appsv1.Deployment, set *appsv1.ReplicaSet, revision string, isNew bool) {
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	for k, v := range d.Annotations {
		switch k {
		case lastAppliedAnnotation, revisionAnnotation, revisionHistoryAnnotation, desiredAnnotation, maxAnnotation, rollbackAnnotation:
		default:
			set.Annotations[k] = v
		}
	}
	old := set.Annotations[revisionAnnotation]
	oldNumber, _ := strconv.ParseInt(old, 10, 64) // absent counts as 0
	newNumber, _ := strconv.ParseInt(revision, 10, 64)
	if oldNumber < newNumber {
		set.Annotations[revisionAnnotation] = revision
		if !isNew && old != "" {
			history := append(strings.FieldsFunc(set.Annotations[revisionHistoryAnnotation], func(r rune) bool { return r == ',' }), old)
			set.Annotations[revisionHistoryAnnotation] = strings.Join(history, ",")
		}
	}
}

// noteSize writes the sizes the set was scaled for and answers whether they changed.
func noteSize(d *appsv1.Deployment, set *appsv1.ReplicaSet) bool {
	surge, _ := surgeAndUnavailable(d)
	want := map[string]string{
		desiredAnnotation: strconv.Itoa(int(replicasOr1(d.Spec.Replicas))),
		maxAnnotation:     strconv.Itoa(int(replicasOr1(d.Spec.Replicas) + surge)),
	}
	changed := false
	for k, v := range want {
		if set.Annotations[k] != v {
			set.Annotations = with(set.Annotations, k, v)
			changed = true
		}
	}
	return changed
}

// resized answers whether the user scaled the Deployment since its sets were sized.
func resized(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) bool {
	active := 0
	for _, set := range sets {
		if replicasOr1(set.Spec.Replicas) > 0 {
			active++
		}
	}
	if active > 1 && d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false // the old sets go to zero anyway
	}
	for _, set := range sets {
		desired, err := strconv.ParseInt(set.Annotations[desiredAnnotation], 10, 32)
		if err == nil && replicasOr1(set.Spec.Replicas) > 0 && int32(desired) != replicasOr1(d.Spec.Replicas) {
			return true
		}
	}
	return false
}

// newSetSize is how large the present set may be now.
func newSetSize(d *appsv1.Deployment, sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) int32 {
	want := replicasOr1(d.Spec.Replicas)
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	have := int32(0)
	if current.Spec.Replicas != nil {
		have = *current.Spec.Replicas
	}
	surge, _ := surgeAndUnavailable(d)
	total := specSum(others(sets, current)) + have
	if room := want + surge - total; room > 0 {
		return max(have, have+min(room, want-have))
	}
	if have > want {
		return want
	}
	return have
}

// surgeAndUnavailable resolves both limits: percentages of surge round up, of
// unavailability down, and both may not be zero.
func surgeAndUnavailable(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0, 0
	}
	quarter := intstr.FromString("25%")
	s, u := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		s, u = cmp.Or(r.MaxSurge, s), cmp.Or(r.MaxUnavailable, u)
	}
	want := int(replicasOr1(d.Spec.Replicas))
	up, errUp := intstr.GetScaledValueFromIntOrPercent(s, want, true)
	down, errDown := intstr.GetScaledValueFromIntOrPercent(u, want, false)
	if errUp != nil || errDown != nil {
		up, down = 1, 0 // validation refuses nonsense; go carefully if it got through
	}
	if up == 0 && down == 0 {
		down = 1
	}
	return int32(up), int32(min(down, want))
}

func others(sets []*appsv1.ReplicaSet, current *appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var out []*appsv1.ReplicaSet
	for _, set := range sets {
		if current == nil || set.Name != current.Name {
			out = append(out, set)
		}
	}
	return out
}

func latest(current *appsv1.ReplicaSet, sets []*appsv1.ReplicaSet) *appsv1.ReplicaSet {
	if current != nil || len(sets) == 0 {
		return current
	}
	return slices.MaxFunc(sets, older)
}

func specSum(sets []*appsv1.ReplicaSet) int32 {
	var sum int32
	for _, set := range sets {
		sum += replicasOr1(set.Spec.Replicas)
	}
	return sum
}

func revisionOf(set *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(set.Annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func with(m map[string]string, key, value string) map[string]string {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]string{}
	}
	out[key] = value
	return out
}
