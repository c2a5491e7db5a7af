#!/bin/sh
# Gives the namespace of every environment its Secrets: the value that Triton asks for before it obeys
# an administrator, and the token with which Argo Rollouts sees how a new version's pods start. What
# is there stays, so run it again for a new environment. From the project's root:
#   sh argocd/base/administration.sh
# Argo CD neither makes nor prunes them: they are not in Git, and no environment's project has Secrets.
set -eu
for overlay in argocd/environments/*/kustomization.yaml; do
    namespace=$(sed -n 's/^namespace: *"\{0,1\}\([a-z0-9-]*\)"\{0,1\} *$/\1/p' "$overlay")
    : "${namespace:?$overlay has no line \`namespace: <name>\`: add it}"
    there=$(kubectl get namespace "$namespace" --ignore-not-found --output name)
    test "$there" || kubectl create namespace "$namespace"
    there=$(kubectl --namespace "$namespace" get secret triton-administration --ignore-not-found --output name)
    test "$there" || od -A n -t x1 -N 32 /dev/urandom | tr -d ' \n' |
        kubectl --namespace "$namespace" create secret generic triton-administration --from-file=value=/dev/stdin
    # Kubernetes fills in the token, if its account is there; what that may do is in Git.
    there=$(kubectl --namespace "$namespace" get serviceaccount pod-reader --ignore-not-found --output name)
    test "$there" || kubectl --namespace "$namespace" create serviceaccount pod-reader
    there=$(kubectl --namespace "$namespace" get secret pod-reader --ignore-not-found --output name)
    test "$there" || printf '%s' '{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pod-reader",
        "annotations": {"kubernetes.io/service-account.name": "pod-reader"}},
        "type": "kubernetes.io/service-account-token"}' |
        kubectl --namespace "$namespace" create --filename=/dev/stdin
done
