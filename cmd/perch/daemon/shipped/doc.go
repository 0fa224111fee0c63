// Package shipped keeps the objects that perch brings along and people edit:
// its rules as PrometheusRules and its dashboards as ConfigMaps, in kube-system.
//
// An object is written once. Afterwards it belongs to the people: what they
// edited or deleted stays so, over restarts and newer versions of perch; what
// they left as it was follows the version of perch. The annotation
// perch.io/shipped of an object is the hash of what perch wrote, so that an edit
// is seen; the ConfigMap perch-shipped lists what was ever written, so that a
// deletion is. Taking an entry out of it (and ending the server role) brings the
// object back.
//
// Start reading at Decide in decide.go; Keep in keep.go does it.
package shipped
