// Package quota owns what counts against a ResourceQuota, and keeps the used
// amounts in the quotas' status true.
//
// Admission (the library's plugin, wired in auth/admission) adds usage on the
// way in; the Controller here counts again when things end, and from time to
// time, so that a lost update heals. Both use the evaluators of this package.
//
// Pods, services and claims are counted from informers; other kinds by a limited
// list that tells only how many there are, once a minute for quotas that name
// them, so that secrets and config maps need not all lie in memory.
//
//	quota.Configuration(nil)                            for admission
//	quota.New(client, informers, log, reg).Run(ctx)     the controller
//
// Start reading at Run in run.go; evaluator_pod.go says what a pod costs.
package quota
