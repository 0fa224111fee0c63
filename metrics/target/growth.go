package target

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// heavy says why a step could make far longer labels than it finds; it is never so of
// one that a person wrote.
func (r relabeling) heavy() string {
	const labels, references, bytes = 64, 32, 1 << 10
	switch {
	case len(r.SourceLabels) > labels:
		return fmt.Sprintf("sourceLabels: %d of them, %d are allowed", len(r.SourceLabels), labels)
	case r.Separator != nil && len(*r.Separator) > bytes:
		return fmt.Sprintf("separator has %d bytes, %d are allowed", len(*r.Separator), bytes)
	case r.Replacement != nil && len(*r.Replacement) > bytes:
		return fmt.Sprintf("replacement has %d bytes, %d are allowed", len(*r.Replacement), bytes)
	case r.Replacement != nil && strings.Count(*r.Replacement, "$") > references:
		return fmt.Sprintf("replacement has more than %d references", references)
	}
	return ""
}

// growth is how many times over the text of a label may stand in one label after the
// steps: 2 for a replacement of $1$1, 4 when that is done twice. Steps that take
// different labels together do not add up, however many they are.
func growth(list []relabeling) int {
	of := map[string]map[string]int{} // label: those it was made of, and how often
	base := 1                         // of a label that no step has made
	most := 1
	for _, r := range list {
		switch action := strings.ToLower(r.Action); action {
		case "labelmap": // what it makes is of any name
			base = most
			continue
		case "", "replace", "lowercase", "uppercase":
			made := map[string]int{}
			for _, l := range r.SourceLabels {
				if of[l] == nil {
					made[l] += base
				}
				for from, n := range of[l] {
					made[from] += n
				}
			}
			times := 1
			if action == "" || action == "replace" {
				times = repeats(r)
			}
			into := map[string]int{r.TargetLabel: base} // where the step does not apply
			for from, n := range of[r.TargetLabel] {
				into[from] = n
			}
			for from, n := range made {
				into[from] = max(into[from], min(n*times, mostGrowth+1))
			}
			for _, n := range into {
				most = max(most, n)
			}
			of[r.TargetLabel] = into
		}
	}
	return most
}

// mostGrowth is what growth may be: more would be for a label without end.
const mostGrowth = 16

// repeats is how often a replacement may have the same text: groups that stand in
// others have it together.
func repeats(r relabeling) int {
	if r.Replacement == nil {
		return 1
	}
	counts, all, most := map[string]int{}, 0, 1
	for _, m := range reference.FindAllStringSubmatch(*r.Replacement, -1) {
		all++
		counts[m[1]+m[2]]++
		most = max(most, counts[m[1]+m[2]])
	}
	if re, err := syntax.Parse(r.Regex, syntax.Perl); len(counts) > 1 && (err != nil || counts["0"] > 0 || nested(re, 0)) {
		return all
	}
	return most
}

var reference = regexp.MustCompile(`\$(?:\{([^}]*)\}|(\w+))`)

// nested answers whether a group stands in a group.
func nested(re *syntax.Regexp, inside int) bool {
	if re.Op == syntax.OpCapture {
		if inside++; inside > 1 {
			return true
		}
	}
	return slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return nested(sub, inside) })
}
