#!/bin/sh
# Gives the namespace of every environment the Secret whose value Triton asks for before it obeys an
# administrator. What is there stays, so run it again for a new environment. From the project's root:
#   sh argocd/base/administration.sh
# Argo CD neither makes nor prunes the Secret: it is not in Git, and no project of Argo CD's has Secrets.
set -eu
for overlay in argocd/environments/*/kustomization.yaml; do
    namespace=$(sed -n 's/^namespace: *"\{0,1\}\([a-z0-9-]*\)"\{0,1\} *$/\1/p' "$overlay")
    : "${namespace:?$overlay has no line \`namespace: <name>\`: add it}"
    there=$(kubectl get namespace "$namespace" --ignore-not-found --output name)
    test "$there" || kubectl create namespace "$namespace"
    there=$(kubectl --namespace "$namespace" get secret triton-administration --ignore-not-found --output name)
    test "$there" || od -A n -t x1 -N 32 /dev/urandom | tr -d ' \n' |
        kubectl --namespace "$namespace" create secret generic triton-administration --from-file=value=/dev/stdin
done
