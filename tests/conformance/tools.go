//go:build tools

package conformance

import (
	// Runs the suite, several tests at a time.
	_ "github.com/onsi/ginkgo/v2/ginkgo"

	// The image that most of the suite's pods run.
	_ "k8s.io/kubernetes/test/images/agnhost"

	// What the API server aggregates in a test.
	_ "k8s.io/sample-apiserver"
)
