"""A gateway in an overlay: one line more, and what it makes of an environment."""

import re
import textwrap
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import rendering
import schemas
from delivery.checks.pod_security import pod_templates, violations
from delivery.manifests.rendering import check_keys
from delivery.manifests.server_pod import read_server_pod

SERVER = {"app.kubernetes.io/name": "triton"}
GATEWAY = {"app.kubernetes.io/name": "gateway"}

Documents = dict[tuple[str, str], dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendering.released_project(tmp_path_factory.mktemp("gateway"))


def built(project: Path, *components: str, environment: str = "staging") -> Documents:
    return rendering.by_name(rendering.build_with(project, environment, *components))


@pytest.fixture(scope="module")
def plain(project: Path) -> Documents:
    return built(project)


@pytest.fixture(scope="module")
def guarded(project: Path) -> Documents:
    return built(project, "gateway")


@pytest.fixture(scope="module")
def certified(project: Path) -> Documents:
    return built(project, "gateway", "client-certificates")


@pytest.fixture(scope="module")
def apps(project: Path) -> Documents:
    return rendering.by_name(rendering.build(project / "argocd/apps"))


def pod(documents: Documents) -> dict:
    return documents["Deployment", "gateway"]["spec"]["template"]


def container(documents: Documents) -> dict:
    (only,) = pod(documents)["spec"]["containers"]
    return only


def flags(documents: Documents) -> dict[str, str]:
    arguments = container(documents)["args"]
    return dict(each.removeprefix("--").partition("=")[::2] for each in arguments)


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


# -- others who say who calls ----------------------------------------------------------------------


def test_the_readme_says_how_people_sign_in(project: Path, guarded: Documents) -> None:
    """The gateway finds the service by its name, so it has to reach the cluster's DNS, too."""
    text = (project / "argocd/README.md").read_text().replace("<namespace>", "sign-in")
    blocks = [textwrap.dedent(each) for each in re.findall(r"(?:^(?: {4}.*)?\n)+", text, re.M)]
    (patches,) = (yaml.safe_load(each) for each in blocks if "forwardAuth" in each)
    (policy,) = (yaml.safe_load(each) for each in blocks if "gateway-to-provider" in each)
    (patch,) = patches["patches"]
    assert (patch["target"]["kind"], patch["target"]["name"]) in guarded
    (change,) = yaml.safe_load(patch["patch"])
    assert change["value"]["forwardAuth"]["address"].startswith("http://oauth2-proxy.sign-in/")
    assert schemas.core_errors(policy) == []
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= GATEWAY.items()
    reached = {
        way["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: [
            (port.get("protocol", "TCP"), port["port"]) for port in way["ports"]
        ]
        for way in policy["spec"]["egress"]
    }
    assert reached == {"sign-in": [("TCP", 4180)], "kube-system": [("TCP", 53), ("UDP", 53)]}


# -- the line --------------------------------------------------------------------------------------


AGES = ("--grpc-max-connection-age=4000", "--grpc-max-connection-age=2147483647")


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_line_changes_how_versions_change_and_whom_the_server_hears(
    project: Path, plain: Documents, guarded: Documents, environment: str
) -> None:
    before, after = plain, guarded
    if environment != "staging":
        before = built(project, environment=environment)
        after = built(project, "gateway", environment=environment)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {("Rollout", "triton"), ("NetworkPolicy", "clients")}
    pods = [deepcopy(each["Rollout", "triton"]["spec"]["template"]) for each in (before, after)]
    arguments = [pod["spec"]["containers"][0].pop("args") for pod in pods]
    assert pods[0] == pods[1]
    differing = [pair for pair in zip(*arguments, strict=True) if len(set(pair)) > 1]
    assert differing == [AGES], "its connections need not be sent away"
    assert not [name for kind, name in before if "gateway" in name or "Traefik" in kind]


def test_the_server_is_rehearsed_as_without_it(plain: Documents, guarded: Documents) -> None:
    for document in guarded.values():
        check_keys(document)
    served = [read_server_pod(each) for each in (plain, guarded)]
    arguments = [[AGES[0] if each == AGES[1] else each for each in pod.arguments] for pod in served]
    assert arguments[0] == arguments[1]
    assert replace(served[0], arguments=()) == replace(served[1], arguments=())


def test_everything_is_valid_to_the_last_key(guarded: Documents, certified: Documents) -> None:
    for documents in (guarded, certified):
        judged = {name: schemas.core_errors(each) for name, each in documents.items()}
        assert {name: errors for name, errors in judged.items() if errors} == {}
        places = {each["metadata"].get("namespace") for each in documents.values()}
        assert places == {None, "digit-classifier-staging"}, "the Namespace itself is in none"


def test_traefiks_kinds_are_valid_to_the_last_key(guarded, certified) -> None:
    for each in [*guarded.values(), *certified.values()]:
        if schemas.core_errors(each) is None:
            assert schemas.crd_errors(each) == [], each["metadata"]["name"]


def test_the_gateway_keeps_the_restricted_level(guarded: Documents) -> None:
    for document in guarded.values():
        for each in pod_templates(document).values():
            assert violations(each["spec"]) == set()
    assert container(guarded)["securityContext"]["readOnlyRootFilesystem"] is True


# -- who reaches what ------------------------------------------------------------------------------


def test_callers_reach_the_gateway_only(guarded: Documents) -> None:
    (rule,) = guarded["NetworkPolicy", "clients"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": GATEWAY}}]
    calls, scrapes = guarded["NetworkPolicy", "gateway"]["spec"]["ingress"]
    assert calls == {"ports": [{"port": "https"}]}
    assert [each["port"] for each in scrapes["ports"]] == ["internal"]
    assert all(each["namespaceSelector"]["matchLabels"] for each in scrapes["from"])


def test_the_gateway_reaches_the_server_and_the_api(guarded: Documents) -> None:
    policy = guarded["NetworkPolicy", "gateway"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    server, api = policy["egress"]
    assert server["to"] == [{"podSelector": {"matchLabels": SERVER}}]
    assert {each["port"] for each in server["ports"]} == {"http", "grpc"}
    (block,) = api["to"]
    assert block["ipBlock"]["except"] == ["169.254.0.0/16"], "the node's own credentials"


def test_what_selects_the_gateway_selects_its_pods(guarded: Documents) -> None:
    labels = pod(guarded)["metadata"]["labels"]
    assert labels == GATEWAY
    for selector in (
        guarded["Deployment", "gateway"]["spec"]["selector"]["matchLabels"],
        guarded["Service", "gateway"]["spec"]["selector"],
        guarded["PodDisruptionBudget", "gateway"]["spec"]["selector"]["matchLabels"],
        guarded["PodMonitor", "gateway"]["spec"]["selector"]["matchLabels"],
        guarded["NetworkPolicy", "gateway"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    ports = {each["name"] for each in container(guarded)["ports"]}
    named = {each["targetPort"] for each in guarded["Service", "gateway"]["spec"]["ports"]}
    (endpoint,) = guarded["PodMonitor", "gateway"]["spec"]["podMetricsEndpoints"]
    assert named | {endpoint["port"]} == ports == {"https", "internal"}
    entries = {
        name: int(flags(guarded)[f"entrypoints.{name}.address"].removeprefix(":")) for name in ports
    }
    assert entries == {each["name"]: each["containerPort"] for each in container(guarded)["ports"]}


def test_it_reads_its_own_namespace_only(guarded: Documents) -> None:
    assert flags(guarded)["providers.kubernetescrd.namespaces"] == "$(NAMESPACE)"
    (variable,) = container(guarded)["env"]
    assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}
    kinds = {kind for kind, _ in guarded}
    assert not kinds & {"ClusterRole", "ClusterRoleBinding"}
    rules = guarded["Role", "gateway"]["rules"]
    assert all(set(rule["verbs"]) == {"get", "list", "watch"} for rule in rules)
    read = {(rule["apiGroups"][0], each) for rule in rules for each in rule["resources"]}
    used = {
        ("traefik.io", f"{each['kind'].lower()}s")
        for each in guarded.values()
        if each["apiVersion"].startswith("traefik.io/")
    }
    assert used < read and not [each for _, each in read if "*" in each]
    (subject,) = guarded["RoleBinding", "gateway"]["subjects"]
    account = {"kind": "ServiceAccount", "name": "gateway", "namespace": "digit-classifier-staging"}
    assert subject == account
    assert pod(guarded)["spec"]["serviceAccountName"] == "gateway"


# -- routes ----------------------------------------------------------------------------------------


def routes(documents: Documents, entry: str) -> list[dict]:
    return [
        route
        for (kind, _), each in documents.items()
        if kind == "IngressRoute" and entry in each["spec"]["entryPoints"]
        for route in each["spec"]["routes"]
    ]


def test_every_route_asks_first_who_calls(guarded: Documents, certified: Documents) -> None:
    for documents in (guarded, certified):
        found = routes(documents, "https")
        assert len(found) == 2
        for route in found:
            names = [each["name"] for each in route["middlewares"]]
            assert names[:3] == ["caller", "rate", "parallel"]
            assert names[-1] == "no-administration"
            assert {("Middleware", name) for name in names} <= documents.keys()
    assert "basicAuth" in guarded["Middleware", "caller"]["spec"]
    assert documents["IngressRoute", "model"]["spec"]["tls"] == {}


def test_limits_count_by_what_the_question_who_calls_wrote(guarded, certified) -> None:
    header = guarded["Middleware", "caller"]["spec"]["basicAuth"]["headerField"]
    certificate = "X-Forwarded-Tls-Client-Cert-Info"  # of passTLSClientCert with `info`
    for documents, name in ((guarded, header), (certified, certificate)):
        for middleware, kind in (("rate", "rateLimit"), ("parallel", "inFlightReq")):
            criterion = documents["Middleware", middleware]["spec"][kind]["sourceCriterion"]
            assert criterion == {"requestHeaderName": name}


def test_administration_passes_neither_way(guarded: Documents) -> None:
    removed = guarded["Middleware", "no-administration"]["spec"]["headers"]["customRequestHeaders"]
    assert removed == {"administration": "", "triton-grpc-protocol-administration": ""}
    (server,) = guarded["Rollout", "triton"]["spec"]["template"]["spec"]["containers"]
    asked = {each.split(":")[1] for each in server["args"] if "restricted" in each}
    assert asked == {"administration=$(ADMINISTRATION)"}, "the headers are named after it"


def test_services_of_routes_exist_with_their_ports(guarded: Documents) -> None:
    weighted = guarded["TraefikService", "triton"]["spec"]["weighted"]["services"]
    (grpc,) = routes(guarded, "https")[1]["services"]
    assert (grpc["name"], grpc["scheme"]) == ("triton", "h2c")
    for each in [*weighted, grpc]:
        ports = guarded["Service", each["name"]]["spec"]["ports"]
        assert each["port"] in {port["name"] for port in ports}
        assert ("ServersTransport", each["serversTransport"]) in guarded
    (http,) = routes(guarded, "https")[0]["services"]
    assert http == {"kind": "TraefikService", "name": "triton"}


def test_ready_means_that_the_routes_are_there(guarded: Documents) -> None:
    assert flags(guarded)["ping.manualrouting"] == "true"
    (route,) = routes(guarded, "internal")
    path = container(guarded)["readinessProbe"]["httpGet"]["path"]
    assert route["match"] == f"Path(`{path}`)"
    assert route["services"] == [{"kind": "TraefikService", "name": "ping@internal"}]


def test_callers_have_moved_before_a_gateway_ends(guarded: Documents) -> None:
    end = "entrypoints.https.transport.lifecycle"
    accepts = seconds(flags(guarded)[f"{end}.requestacceptgracetimeout"])
    finishes = seconds(flags(guarded)[f"{end}.gracetimeout"])
    assert seconds(flags(guarded)["entrypoints.https.transport.keepalivemaxtime"]) < accepts / 2
    assert accepts + finishes < pod(guarded)["spec"]["terminationGracePeriodSeconds"]


# -- Secrets ---------------------------------------------------------------------------------------


def test_without_its_secrets_no_pod_starts(guarded: Documents, certified: Documents) -> None:
    for documents, callers in (
        (guarded, guarded["Middleware", "caller"]["spec"]["basicAuth"]["secret"]),
        (
            certified,
            certified["TLSOption", "default"]["spec"]["clientAuth"]["secretNames"][0],
        ),
    ):
        certificate = documents["TLSStore", "default"]["spec"]["defaultCertificate"]["secretName"]
        (volume,) = [each for each in pod(documents)["spec"]["volumes"] if "projected" in each]
        secrets = [each["secret"] for each in volume["projected"]["sources"]]
        assert {each["name"] for each in secrets} == {certificate, callers}
        assert not any(each.get("optional") for each in secrets)
        mounted = {each["name"] for each in container(documents)["volumeMounts"]}
        assert volume["name"] in mounted, "the kubelet waits for what is mounted"
        assert "Secret" not in {kind for kind, _ in documents}


def test_certificates_hold_for_every_name_that_a_caller_may_say(certified: Documents) -> None:
    """Options of another name than `default` hold for routes of a host only."""
    options = certified["TLSOption", "default"]["spec"]
    assert options["clientAuth"]["clientAuthType"] == "RequireAndVerifyClientCert"
    assert options["minVersion"] == "VersionTLS12"
    assert [name for kind, name in certified if kind == "TLSOption"] == ["default"]


# -- Argo ------------------------------------------------------------------------------------------


def test_argo_rollouts_shares_requests_out(guarded: Documents, project: Path) -> None:
    canary = guarded["Rollout", "triton"]["spec"]["strategy"]["canary"]
    name = canary["trafficRouting"]["traefik"]["weightedTraefikServiceName"]
    weighted = guarded["TraefikService", name]["spec"]["weighted"]["services"]
    shares = {each["name"]: each["weight"] for each in weighted}
    assert shares == {canary["stableService"]: 100, canary["canaryService"]: 0}
    assert canary["dynamicStableScale"] is True, "or it takes twice the GPUs"
    for service in shares:
        assert guarded["Service", service]["spec"]["selector"] == SERVER
    controller = project / "argocd/base/platform/controllers/argo-rollouts.yaml"
    arguments = yaml.safe_load(controller.read_text())["settings"]["controller"]["extraArgs"]
    version = guarded["TraefikService", name]["apiVersion"]
    assert arguments == [
        f"--traefik-api-group={version.partition('/')[0]}",
        f"--traefik-api-version={version}",
    ]


def test_argo_cd_leaves_to_argo_rollouts_what_that_changes(guarded: Documents, apps) -> None:
    spec = apps["ApplicationSet", "models"]["spec"]["template"]["spec"]
    ignored = {
        (each.get("group", ""), each["kind"], each.get("name")): [
            *each.get("jsonPointers", []),
            *each.get("jqPathExpressions", []),
        ]
        for each in spec["ignoreDifferences"]
    }
    canary = guarded["Rollout", "triton"]["spec"]["strategy"]["canary"]
    for service in (canary["stableService"], canary["canaryService"]):
        assert ignored["", "Service", service] == ["/spec/selector/rollouts-pod-template-hash"]
    weights = ignored["traefik.io", "TraefikService", None]
    assert weights == [".spec.weighted.services[].weight"]


def test_the_models_project_allows_exactly_what_environments_may_add(
    project: Path, guarded: Documents, apps: Documents
) -> None:
    allowed = apps["AppProject", "models"]["spec"]["namespaceResourceWhitelist"]
    used = {
        (each["apiVersion"].rpartition("/")[0], each["kind"])
        for each in (guarded | built(project, "autoscale", "probe")).values()
        if each["kind"] != "Namespace"
    }
    assert {(each["group"], each["kind"]) for each in allowed} == used


def test_the_kinds_are_pinned_to_the_release_that_runs(guarded: Documents, project: Path) -> None:
    text = (project / "argocd/base/platform/gateway/kustomization.yaml").read_text()
    (version,) = re.findall(r"kinds of Traefik (\d+\.\d+\.\d+)", text)
    image = container(guarded)["image"]
    assert re.fullmatch(
        rf"docker\.io/library/traefik:v{re.escape(version)}(@sha256:[0-9a-f]{{64}})?", image
    )
    (address,) = yaml.safe_load(text)["resources"]
    assert re.search(r"/traefik/traefik/[0-9a-f]{40}/docs/", address)


def test_no_kind_is_ever_taken_away_with_all_gateways(apps: Documents) -> None:
    kinds = apps["Application", "gateway-kinds"]["spec"]
    assert kinds["source"]["path"] == "argocd/base/platform/gateway"
    assert kinds["syncPolicy"]["automated"] == {"enabled": True, "prune": False, "selfHeal": True}
