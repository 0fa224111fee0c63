package component

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// componentLabel tells within a registry whose requests are counted.
const componentLabel = "perch_component"

// Count gives a transport whose requests are counted as client-go counts those
// of job. Watches end their duration with the first byte of the answer.
func Count(job string, reg prometheus.Registerer) func(http.RoundTripper) http.RoundTripper {
	label := prometheus.Labels{componentLabel: job}
	c := &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "rest_client_requests_total", ConstLabels: label,
			Help: "Requests to the API by status code, method and host."}, []string{"code", "method", "host"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "rest_client_request_duration_seconds", ConstLabels: label,
			Help: "Time from a request to the API to the head of its answer, by method and host.", Buckets: []float64{.005, .025, .1, .25, .5, 1, 2, 4, 8, 15, 30, 60}}, []string{"verb", "host"}),
	}
	reg.MustRegister(c.total, c.took)
	return func(next http.RoundTripper) http.RoundTripper { return counted{next, c} }
}

type requests struct {
	total *prometheus.CounterVec
	took  *prometheus.HistogramVec
}

type counted struct {
	next http.RoundTripper
	*requests
}

// RoundTrip counts a request that got no answer under the code <error>.
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := c.next.RoundTrip(r)
	code := "<error>"
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	c.total.WithLabelValues(code, r.Method, r.URL.Host).Inc()
	c.took.WithLabelValues(r.Method, r.URL.Host).Observe(time.Since(began).Seconds())
	return resp, err
}
