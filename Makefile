# Targets list themselves: run `make`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
K8S      := v1.36.3
LDFLAGS  := -s -w -X perch/cmd/perch/cli.BuildVersion=$(VERSION) \
  -X k8s.io/component-base/version.gitVersion=$(K8S)+perch -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 \
  -X k8s.io/client-go/pkg/version.gitVersion=$(K8S)+perch
SUDO     := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DEMO_DIR ?= /var/lib/perch-demo

# One set of flags for building, vetting and testing, so that each package is
# compiled once.
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -tags=no_btrfs,no_zfs,no_devmapper -buildvcs=false
GO     := go
ASROOT := $(SUDO) env "PATH=$(PATH)" GOCACHE=$(shell go env GOCACHE) GOMODCACHE=$(shell go env GOMODCACHE) GOFLAGS="$(GOFLAGS)" CGO_ENABLED=0

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install what a Debian machine lacks to build perch (elsewhere: say it)
	@build/deps.sh build

.PHONY: deps-test
deps-test: deps ## install what the tests need too (Chromium, kubectl, nftables, …)
	@build/deps.sh test

.PHONY: helpers
helpers: ## build what rides inside the binary: shim, runc, pause
	@build/helpers.sh

.PHONY: build
build: deps helpers ## build bin/perch and bin/perch-demo
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/perch ./cmd/perch
	$(GO) build -ldflags '-s -w' -o bin/perch-demo ./cmd/perch-demo

.PHONY: ui
ui: ## build the page into ui/dist
	cd ui/web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

.PHONY: check
check: ## format, vet, architecture
	@out=$$(gofmt -l $$(git ls-files '*.go' | grep -v '_gen\.go$$')); [ -z "$$out" ] || { echo "not formatted:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) test ./cmd/perch/archtest/

.PHONY: unit
unit: deps-test helpers ## tests of the packages (some need root)
	$(ASROOT) $(GO) test -timeout 15m $$(go list ./... | grep -v -e /archtest -e /cmd/perch/e2e -e /cmd/perch/page)

.PHONY: e2e
e2e: deps-test build ## whole clusters with real containers
	$(ASROOT) PERCH=$(CURDIR)/bin/perch $(GO) test -count=1 -timeout 25m ./cmd/perch/e2e/...

.PHONY: page
page: deps-test build ## the page in Chromium, on live data; screenshots in out/page
	$(ASROOT) PERCH=$(CURDIR)/bin/perch $(GO) test -count=1 -timeout 15m ./cmd/perch/page/...

.PHONY: vm-test
vm-test: deps build ## perch on a kernel with nothing but cgroup version 2, in an emulated machine (minutes)
	@build/deps.sh vm
	$(ASROOT) build/vm-test.sh

.PHONY: test
test: check unit e2e page ## all of the above

.PHONY: demo
demo: build ## start a one-node cluster with an application under load, and tell its story
	@$(SUDO) env "PATH=$$PATH" build/demo.sh up $(DEMO_DIR)

.PHONY: demo-down
demo-down: ## remove the demo and everything it left
	@$(SUDO) env "PATH=$$PATH" build/demo.sh down $(DEMO_DIR)

.PHONY: bench
bench: build deps-test ## figures of a whole perch: start, latency, writes, CPU seconds, memory
	build/images/all.sh out/images
	$(ASROOT) $(GO) run ./cmd/perch/bench -perch bin/perch

SOAK ?= latency,pods,quiet

.PHONY: soak
soak: build deps-test ## hours: lines of 50 pods in time, 10,000 real pods of 100 ms, half an hour of silence; SOAK=pods,quiet chooses
	build/images/all.sh out/images
	$(ASROOT) $(GO) run ./cmd/perch/soak -perch bin/perch -parts $(SOAK)

.PHONY: bench-logs
bench-logs: ## figures of the log store: CPU seconds, disk and memory for 5 million lines, with the machine's bounds
	$(GO) run ./logs/bench

.PHONY: bench-metrics
bench-metrics: build deps-test ## figures of numbers: CPU of each source, memory of the store, crash to webhook, on a cluster with 50 pods (about 14 minutes)
	build/images/all.sh out/images
	$(ASROOT) $(GO) run ./cmd/perch/bench -perch bin/perch -only samples,collect,crash,short
	# The steps from cgroup file to store over and over, without what a pause costs: the sum is the way of a sample.
	$(ASROOT) $(GO) test -run '^$$' -bench 'Fast|Rest' ./agent/stats
	$(GO) test -run '^$$' -bench 'Send|Append' ./metrics/stream ./metrics/store

.PHONY: clean
clean: ## remove what was built
	rm -rf bin out agent/runtime/bundle/bin/{perch-shim,runc,pause*,*.tar,.stamp*}

.PHONY: interop-logs
interop-logs: ## the doors for logs with real clients: Fluent, Loki, Elasticsearch, OpenTelemetry, rsyslog, syslog-ng
	build/interop-logs.sh
	$(GO) test -count=1 -v ./logs/ingest/interop/

.PHONY: interop-metrics
interop-metrics: ## remote write with Prometheus' own servers, and the cost of queries beside the pinned one
	build/prometheus.sh out/interop/prometheus
	$(GO) test -count=1 -v ./metrics/interop/

.PHONY: interop
interop: interop-logs interop-metrics ## both of the above

.PHONY: lint
lint: ## golangci-lint (built once into out/bin; takes minutes the first time)
	@[ -x out/bin/golangci-lint ] || GOFLAGS= GOBIN=$(CURDIR)/out/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0
	out/bin/golangci-lint run ./...

.PHONY: compose-test
compose-test: build deps-test ## docker-compose.yml: one server and two workers from a FROM scratch image
	$(ASROOT) build/compose-test.sh
