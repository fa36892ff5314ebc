// Sources of GitOps controllers and of External Secrets Operator: kustomize-controller is built from them, of the others
// only the CustomResourceDefinitions are used. go.sum has the hash of each.
module devcluster/gitops

go 1.26.0

require (
	github.com/argoproj/argo-cd/v3 v3.5.1
	github.com/external-secrets/external-secrets v1.3.2
	github.com/fluxcd/helm-controller v1.6.4
	github.com/fluxcd/kustomize-controller v1.9.6
	github.com/fluxcd/kustomize-controller/api v1.9.6
	github.com/fluxcd/source-controller v1.9.6
)
