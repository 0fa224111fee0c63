package api

// Namespaces that exist in every cluster.
const (
	NamespaceDefault   = "default"
	NamespaceSystem    = "kube-system"
	NamespacePublic    = "kube-public"
	NamespaceNodeLease = "kube-node-lease"
)

// Annotations and labels of perch itself.
const (
	// AnnotationReason says in one sentence why perch made or changed an object.
	AnnotationReason = "perch.dev/reason"
	// AnnotationCause names the rule, user or number behind AnnotationReason.
	AnnotationCause = "perch.dev/cause"
	// LabelManagedBy marks objects that perch keeps and will repair.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedByPerch is the value of LabelManagedBy.
	ManagedByPerch = "perch"
)

// Annotations by which pods ask to be scraped.
const (
	AnnotationScrape       = "prometheus.io/scrape"
	AnnotationScrapePort   = "prometheus.io/port"
	AnnotationScrapePath   = "prometheus.io/path"
	AnnotationScrapeScheme = "prometheus.io/scheme"
)
