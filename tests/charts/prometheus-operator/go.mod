// Where the tests take the Prometheus operator's CustomResourceDefinitions from; nothing is built of it.
module tests/prometheus-operator

go 1.24.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
