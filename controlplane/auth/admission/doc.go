// Package admission owns the last word on a write before it is stored: the
// defaults that depend on other objects, the limits of a namespace, and what
// nodes and role writers may change.
//
// It keeps nothing: everything comes from informers handed in by the API server.
// Objects arrive as external v1 types, since those are the hub types here. Each
// plugin is safe to run twice on one object (webhooks may cause that).
//
//	admission.Register(options.Plugins)                beside the library's own
//	options.RecommendedPluginOrder = admission.Order()
//	admission.EnsurePriorityClasses(ctx, client)       at each start
//
// Start reading at Order in register.go; each plugin has a file of its name.
package admission
