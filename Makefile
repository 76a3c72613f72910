# Everything here can be called by hand as well; the scripts are in deploy/local/.
.DEFAULT_GOAL := help
.PHONY: help demo test test-full soak image crds

help: ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A Kubernetes node, an ECR and the operator on this machine (root), until Ctrl-C. DEMO_EXIT=1: until it is shown.
	@deploy/local/demo

test: ## Everything: format, lints, unit and property tests, charts, end to end on a real API server and a real node (root).
	@deploy/local/test

test-full: ## The same with every plan of the crash matrix, 100,000 schedules and long fuzzing (docs/faults.md).
	@CRASH_PLANS=all SCHEDULES=100000 FUZZ_CASES=5000 deploy/local/test

soak: ## 2,000 repositories, 500 namespaces, SOAK_MINUTES (10) of changes and faults; a report (docs/faults.md).
	cargo test --locked --features e2e --test soak -- --ignored --nocapture

image: ## The operator's image as an OCI archive, built without a container engine.
	@deploy/local/operator-image

crds: ## Write crds/ and the chart's copy from the Rust types.
	UPDATE_CRDS=1 cargo test --locked --lib crds
	charts/sync-crds
