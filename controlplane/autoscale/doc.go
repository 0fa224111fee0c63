// Package autoscale turns numbers into replicas: HorizontalPodAutoscaler v2 on
// cpu, memory and metrics of applications, judged every five seconds from PromQL.
//
// It owns the status of HorizontalPodAutoscalers and the scale subresource of
// their targets. It never scales in on a partial answer, and each change tells
// the numbers it was made from (event SuccessfulRescale).
//
//	scales, mapper, err := autoscale.Scales(restConfig, client.Discovery())
//	a, err := autoscale.New(autoscale.Default(), client, scales, mapper, informers, query, custom, recorder.Tell, log, reg)
//	group.Go("autoscale", a.Run)
//
// Query answers instant PromQL; the series are container_cpu_usage_seconds_total
// (seconds) and container_memory_working_set_bytes with labels namespace, pod and
// container. Custom answers metrics of type Pods, Object and External.
//
// Start reading at Run in run.go; the rules are Decide (decide.go) and the limits
// of speed in behavior.go.
package autoscale
