package daemon

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"

	"perch/alerts/alarm"
	"perch/alerts/evidence"
	"perch/alerts/route"
	"perch/cmd/perch/daemon/door"
	"perch/metrics/target"
)

// awayFor is how long a worker may be lost before another watches in its place.
const awayFor = 10 * time.Minute

// serveAlarm tells the watchers among the workers whom they are to tell when
// this server is gone.
func (a *alerts) serveAlarm(r role, web *door.Door, nodes coreinformers.NodeInformer) {
	web.Handle("GET "+alarm.Path, door.Node, alarm.Handler(func(req *http.Request) (alarm.Told, error) {
		node, err := nodeOfCaller(req)
		if err != nil {
			return alarm.Told{}, err
		}
		if !nodes.Informer().HasSynced() {
			return alarm.Told{}, errors.New("the nodes are not known yet")
		}
		var workers []string
		for _, n := range all(nodes.Lister().List) {
			if n.Name != r.cfg.NodeName && !lost(n, time.Now()) {
				workers = append(workers, n.Name)
			}
		}
		if !slices.Contains(alarm.Watchers(workers), node) {
			return alarm.Told{}, nil
		}
		var t alarm.Told
		if t.Config, t.Templates, err = route.Only(a.router.Text(), alarm.Labels(node)); err != nil {
			return alarm.Told{}, err
		}
		t.SilencedUntil, err = a.router.SilencedUntil(req.Context(), alarm.Labels(node))
		return t, err
	}))
}

// lost answers whether a node has not been ready for so long that it is not
// counted on.
func lost(n *corev1.Node, now time.Time) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status != corev1.ConditionTrue && now.Sub(c.LastTransitionTime.Time) > awayFor
		}
	}
	return false
}

// watchServer tells people when this worker's server is gone.
func (r role) watchServer(lines *lines, services func(host string) (string, bool)) error {
	page, err := url.Parse(r.cfg.Web)
	if err != nil {
		return fmt.Errorf("read URL of the server: %w", err)
	}
	text, err := os.ReadFile(r.cfg.Path("ca.crt"))
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	cert := reloading(r.cfg.Path("pki", "node.crt"), r.cfg.Path("pki", "node.key"))
	// Connections of its own, of HTTP/1: on a shared one the question would wait
	// behind samples that a dead server does not take.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert() }}}}
	// Its several hundred series would be those of every worker; alarm has its own.
	router, err := route.New(route.Config{Dir: r.cfg.Path("alarm"), ExternalURL: page.JoinPath("alertmanager"), Resolve: services, Guarded: target.Guarded}, r.part("alarm"), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	if err := router.Apply(route.Default); err != nil {
		return err
	}
	cfg := alarm.Default()
	cfg.File, cfg.Node, cfg.Server = r.cfg.Path("alarm", "told.json"), r.cfg.NodeName, r.cfg.Web
	a := alarm.New(cfg, alarm.Parts{Ask: alarm.Ask(client, r.cfg.Web), Send: router.Receive, Known: router.Active,
		Apply: func(text string, templates []string) error {
			return router.ApplyWith(cmp.Or(text, route.Default), templates)
		},
		Note: func(ctx context.Context, t evidence.Transition) { lines.told.note(ctx, alertRecord(t)) }}, r.part("alarm"), r.reg)
	r.group.Go("route", router.Run)
	r.group.Go("alarm", a.Run)
	return nil
}
