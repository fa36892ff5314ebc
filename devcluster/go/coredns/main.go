// CoreDNS with the plugins that a single node needs, which leaves out most of the full program's dependencies.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	// The order in which the plugins see a query.
	dnsserver.Directives = []string{"errors", "hosts", "kubernetes"}
	coremain.Run()
}
