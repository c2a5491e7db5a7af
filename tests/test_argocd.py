"""Every manifest of a generated project, built as Argo CD builds it, then judged."""

import copy
import itertools
import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import observed
import programs
import rendering
import schemas
from conftest import TEMPLATE, UNBAKED, Project, clean_environment, cookiecutter
from delivery.checks.pod_security import pod_templates, violations
from delivery.triton.server import translate

CHECKOV = "checkov==3.3.30"
ENVIRONMENTS = ("staging", "production")

# Found by glob; the vendored folder appears in a project under another name.
KUSTOMIZATIONS = sorted(
    str(target / path.parent.relative_to(source))
    for source, target in (
        (TEMPLATE / "argocd", Path("argocd/base")),
        (UNBAKED / "argocd", Path("argocd")),
    )
    for path in source.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text())["kind"] == "Kustomization" and not path.is_symlink()
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project as it is generated, without its Python environments."""
    output = tmp_path_factory.mktemp("argocd")
    result = cookiecutter(output)
    assert result.returncode == 0, result.stderr
    return Project(output / "digit-classifier")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with one release in each environment and one training run."""
    return rendering.released_project(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def built(released: Path) -> dict[str, list[dict]]:
    return {name: rendering.build(released / name) for name in KUSTOMIZATIONS}


@pytest.fixture(scope="module")
def apps(built: dict[str, list[dict]]) -> dict[tuple[str, str], dict]:
    return {(each["kind"], each["metadata"]["name"]): each for each in built["argocd/apps"]}


@pytest.fixture(scope="module")
def generated(apps: dict[tuple[str, str], dict], released: Path) -> dict[str, list[dict]]:
    """The Applications that each ApplicationSet makes."""
    return {
        name: rendering.applications(document, released)
        for (kind, name), document in apps.items()
        if kind == "ApplicationSet"
    }


@pytest.fixture(scope="module")
def documents(built, generated, released: Path) -> list[dict]:
    """Everything that reaches a cluster: bases do so through overlays only."""
    root = yaml.safe_load_all((released / "argocd/root.yaml").read_text())
    bases = ("argocd/base/training", "argocd/base/triton")
    folders = [each for name, each in built.items() if name not in bases]
    return list(itertools.chain(root, *folders, *generated.values()))


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def environment(request, built) -> dict[tuple[str, str], dict]:
    folder = built[f"argocd/environments/{request.param}"]
    return {(each["kind"], each["metadata"]["name"]): each for each in folder}


def shown(document: dict) -> str:
    metadata = document["metadata"]
    return f"{document['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def as_known(document: dict) -> list[dict]:
    """The kinds of Kubernetes' own that run the same pods, for tools that know no others."""
    if document["kind"] == "Rollout":
        return [as_deployment(document)]
    if document["kind"] == "RayJob":
        return as_jobs(document)
    return [document]


def as_jobs(ray_job: dict) -> list[dict]:
    """A Job for each sort of pods of a RayJob: they run to an end, and the operator adds probes."""
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": ray_job["metadata"] | {"name": f"{ray_job['metadata']['name']}-{part}"},
            "spec": {"template": template},
        }
        for part, template in pod_templates(ray_job).items()
    ]


def as_deployment(rollout: dict) -> dict:
    """The Deployment that runs a Rollout's pods, for tools that know no Rollout."""
    shared = ("minReadySeconds", "replicas", "revisionHistoryLimit", "selector", "template")
    spec = {key: rollout["spec"][key] for key in shared if key in rollout["spec"]}
    return rollout | {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}


# -- schemas ---------------------------------------------------------------------------------------


def test_every_kustomization_is_found_and_builds(built) -> None:
    assert {f"argocd/environments/{name}" for name in ENVIRONMENTS} < set(built)
    assert {"argocd/apps", "argocd/base/triton", "argocd/base/argo-cd"} < set(built)
    assert all(built.values())


def test_kubernetes_own_kinds_are_valid_to_the_last_key(documents) -> None:
    judged = {shown(each): schemas.core_errors(each) for each in documents}
    assert sum(errors == [] for errors in judged.values()) >= 10
    assert {name: errors for name, errors in judged.items() if errors} == {}


def test_every_rollouts_pods_and_every_kinds_metadata_are_valid(documents) -> None:
    """The lighter check of controllers' kinds, which needs no schemas from elsewhere."""
    kinds = ("Rollout", "RayJob")
    pods = [known for each in documents if each["kind"] in kinds for known in as_known(each)]
    metadata = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": each["metadata"]}
        for each in documents
    ]
    assert len(pods) == len(ENVIRONMENTS) + 3
    for each in pods + metadata:
        assert schemas.core_errors(each) == [], shown(each)


@pytest.fixture(scope="module")
def custom(documents) -> list[dict]:
    return [each for each in documents if schemas.core_errors(each) is None]


def test_controllers_kinds_are_valid_to_the_last_key(custom) -> None:
    kinds = {each["kind"] for each in custom}
    argo = {"Rollout", "Application", "ApplicationSet", "AppProject"}
    assert kinds >= argo | {"PodMonitor", "RayJob"}
    assert {shown(each): errors for each in custom if (errors := schemas.crd_errors(each))} == {}


def test_an_unknown_key_at_any_depth_of_a_controllers_kind_is_found(custom) -> None:
    for document in custom:
        broken = copy.deepcopy(document)
        broken["spec"]["reveiwed"] = True
        assert any("reveiwed" in error for error in schemas.crd_errors(broken)), shown(document)
    (deep, *_) = [copy.deepcopy(each) for each in custom if each["kind"] == "Rollout"]
    deep["spec"]["strategy"]["canary"]["steps"][0]["wait"] = 5
    assert any("'wait' was unexpected" in error for error in schemas.crd_errors(deep))


def test_what_a_project_knows_to_be_a_rollouts_own_is_what_the_schema_says() -> None:
    """`delivery.manifests.rendering` judges a Rollout as a Deployment, apart from these keys."""
    text = (TEMPLATE / "delivery/manifests/rendering.py").read_text()
    (listed,) = re.findall(r"^ROLLOUT_ONLY = {(.*?)}", text, re.DOTALL | re.MULTILINE)
    schema = schemas.crd_schema("argoproj.io/v1alpha1", "Rollout")
    rollout = set(schema["properties"]["spec"]["properties"])
    deployment = {
        "minReadySeconds",
        "paused",
        "progressDeadlineSeconds",
        "replicas",
        "revisionHistoryLimit",
        "selector",
        "template",
    }
    assert set(re.findall(r'"(\w+)"', listed)) == rollout - deployment


# -- policies --------------------------------------------------------------------------------------


def test_pods_keep_the_restricted_level_and_their_namespaces_enforce_it(documents) -> None:
    pods = {
        (shown(each), part): pod for each in documents for part, pod in pod_templates(each).items()
    }
    job = "RayJob digit-classifier-training/train-3"
    servers = {(f"Rollout digit-classifier-{name}/triton", "") for name in ENVIRONMENTS}
    asking = "AnalysisTemplate digit-classifier-{}/golden-answers"
    askers = {(asking.format(name), "answers") for name in ENVIRONMENTS}
    assert set(pods) == servers | askers | {(job, part) for part in ("head", "gpu", "submitter")}
    for name, each in pods.items():
        assert violations(each["spec"]) == set(), name
    namespaces = [each["metadata"] for each in documents if each["kind"] == "Namespace"]
    assert {each["name"] for each in namespaces} >= {
        "digit-classifier-staging",
        "digit-classifier-production",
        "digit-classifier-training",
        "argocd",
    }
    for each in namespaces:
        assert each["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", each["name"]


# name of the field: what is changed in a pod that keeps the level
BREACHES = {
    "hostNetwork": {"hostNetwork": True},
    "hostPID": {"hostPID": True},
    "volumes.hostPath": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    "runAsUser": {"securityContext": {"runAsUser": 0}},
    "sysctls": {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}},
    "seLinuxOptions": {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}},
    "appArmorProfile": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
}
CONTAINER_BREACHES = {
    "privileged": {"privileged": True},
    "allowPrivilegeEscalation": {"allowPrivilegeEscalation": True},
    "runAsNonRoot": {"runAsNonRoot": False},
    "runAsUser": {"runAsUser": 0},
    "seccompProfile": {"seccompProfile": {"type": "Unconfined"}},
    "capabilities.drop": {"capabilities": {}},
    "capabilities.add": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}},
    "procMount": {"procMount": "Unmasked"},
}


@pytest.fixture
def pod(built) -> dict:
    (rollout,) = [
        each for each in built["argocd/environments/staging"] if each["kind"] == "Rollout"
    ]
    return copy.deepcopy(rollout["spec"]["template"]["spec"])


@pytest.mark.parametrize("field", BREACHES)
def test_a_pod_that_breaks_the_restricted_level_is_found(pod, field) -> None:
    for key, value in BREACHES[field].items():
        pod[key] = pod.get(key, {}) | value if isinstance(value, dict) else value
    assert field in violations(pod)


@pytest.mark.parametrize("field", CONTAINER_BREACHES)
def test_a_container_that_breaks_the_restricted_level_is_found(pod, field) -> None:
    pod["containers"][0]["securityContext"] |= CONTAINER_BREACHES[field]
    assert field in violations(pod)


@pytest.fixture(scope="module")
def checkov(documents, released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """checkov's report; of kinds that it does not know it is shown others with the same pods.

    A gateway and a monitor are there, too, which are in no overlay at first.
    """
    folder = tmp_path_factory.mktemp("checkov")
    gateway = [
        each
        for each in rendering.build_with(released, "staging", "gateway", "monitor")
        if each["metadata"]["name"] in ("gateway", "monitor")
    ]
    known = [known for each in documents + gateway for known in as_known(each)]
    (folder / "manifests.yaml").write_text(yaml.safe_dump_all(known))
    config = released / "argocd/base/.checkov.yaml"
    tool = [Path(sys.executable).parent / "uv", "tool", "run", "--from", CHECKOV, "checkov"]
    result = subprocess.run(
        [*tool, "--config-file", config, "--directory", folder, "--output", "json"],
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert result.stdout.startswith("{"), result.stderr
    return json.loads(result.stdout)


def test_checkov_finds_nothing(checkov, documents) -> None:
    results = checkov["results"]
    scanned = {check["resource"] for check in results["passed_checks"]}
    pods = {f"Deployment.digit-classifier-{name}.triton" for name in ENVIRONMENTS} | {
        f"Job.digit-classifier-training.train-3-{part}" for part in ("head", "gpu", "submitter")
    }
    pods |= {f"{kind}.digit-classifier-staging.gateway" for kind in ("Deployment", "Role")}
    pods.add("Deployment.digit-classifier-staging.monitor")
    assert pods <= scanned, scanned
    failed = [(check["check_id"], check["resource"]) for check in results["failed_checks"]]
    assert failed == []


def test_checkov_skips_little_and_says_why(checkov, released: Path) -> None:
    config = (released / "argocd/base/.checkov.yaml").read_text()
    (listed,) = re.findall(r"skip-check:\n((?:  - .*\n)+)", config)
    general = listed.splitlines()
    assert all(re.fullmatch(r"  - CKV\w+ # .{20,}", line) for line in general)
    skipped = checkov["results"]["skipped_checks"]
    assert all(len(check["check_result"]["suppress_comment"]) > 20 for check in skipped)
    assert len(general) + len({check["check_id"] for check in skipped}) <= 5


# -- the model server ------------------------------------------------------------------------------


@pytest.fixture
def server(environment) -> dict:
    (container,) = environment["Rollout", "triton"]["spec"]["template"]["spec"]["containers"]
    return container


def test_the_release_is_what_the_rollout_serves(environment, server) -> None:
    release = yaml.safe_load(rendering.RELEASE)["data"]
    template = environment["Rollout", "triton"]["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/version"] == release["version"]
    volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
    assert volumes["model"]["image"]["reference"] == release["image"]
    ready = f"/v2/models/classifier/versions/{release['version']}/ready"
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"] == {"path": ready, "port": "http"}
    assert server["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


def test_the_server_is_pinned_and_starts_without_the_images_entry_point(server) -> None:
    tag = r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-py3(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(tag, server["image"]).group(1) >= "26.07"
    assert server["command"] == ["tritonserver"]
    flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in server["args"])
    assert flags["model-control-mode"] == "none"
    mounts = {mount["name"]: mount for mount in server["volumeMounts"]}
    assert mounts["model"]["mountPath"] == flags["model-repository"]
    assert mounts["model"]["readOnly"]
    assert {mounts["tmp"]["mountPath"], mounts["shared-memory"]["mountPath"]} == {
        "/tmp",
        "/dev/shm",
    }
    ports = {port["name"]: str(port["containerPort"]) for port in server["ports"]}
    assert ports == {name: flags[f"{name}-port"] for name in ("http", "grpc", "metrics")}


ADMINISTRATION = {
    *("shared-memory", "model-config", "model-repository"),
    *("statistics", "trace", "logging"),
}


def test_administration_asks_for_a_value_that_only_a_secret_holds(server, apps) -> None:
    flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in server["args"])
    for flag in ("http-restricted-api", "grpc-restricted-protocol"):
        interfaces, _, asked = flags[flag].partition(":")
        assert set(interfaces.split(",")) == ADMINISTRATION
        assert asked == "administration=$(ADMINISTRATION)"
    assert flags["allow-client-shm"] == "false"
    (variable,) = [each for each in server["env"] if each["name"] == "ADMINISTRATION"]
    secret = {"name": "triton-administration", "key": "value"}
    assert variable["valueFrom"] == {"secretKeyRef": secret}, "without it no pod starts"
    kinds = apps["AppProject", "models"]["spec"]["namespaceResourceWhitelist"]
    assert "Secret" not in {each["kind"] for each in kinds}, "Argo CD neither makes nor prunes it"


def test_a_pod_has_time_to_drain(environment, server) -> None:
    pod = environment["Rollout", "triton"]["spec"]["template"]["spec"]
    (exit_timeout,) = [
        int(argument.partition("=")[2])
        for argument in server["args"]
        if argument.startswith("--exit-timeout-secs=")
    ]
    sleep = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep + exit_timeout


def test_grpc_clients_have_moved_before_the_server_ends(server) -> None:
    """Clients keep a channel for as long as the server does, and unloading answers NOT_FOUND."""
    flags = dict(argument.removeprefix("--").partition("=")[::2] for argument in server["args"])
    age = 1.1 * int(flags["grpc-max-connection-age"]) / 1000  # gRPC adds up to a tenth
    sleep = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert age < sleep / 2, "the rest is for proxies that still send new connections here"
    grace = int(flags["grpc-max-connection-age-grace"]) / 1000
    assert grace >= int(flags["exit-timeout-secs"]), "a request has no less time than at the exit"
    here = [each for each in translate(server["args"]) if each.startswith("--grpc-max-conn")]
    assert len(here) == 2, "rehearsals and previews do as the cluster does"


def test_a_pod_has_one_gpu_where_gpus_are_and_no_credentials(environment, server) -> None:
    pod = environment["Rollout", "triton"]["spec"]["template"]["spec"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert pod["automountServiceAccountToken"] is False
    assert environment["ServiceAccount", "triton"]["automountServiceAccountToken"] is False
    assert "imagePullSecrets" not in pod
    assert [each["name"] for each in server["env"]] == [
        "HOME",
        "ORT_DISABLE_TELEMETRY",
        "ADMINISTRATION",
    ]


@pytest.mark.parametrize("components", [["gpu", "release", "cpu"], ["cpu", "release"]])
def test_a_pod_without_a_gpu_runs_anywhere_with_the_image_of_an_overlay(
    released: Path, tmp_path: Path, components: list[str]
) -> None:
    shutil.copytree(released / "argocd", tmp_path / "argocd")
    overlay = tmp_path / "argocd/environments/staging"
    settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    settings["components"] = [f"../../base/components/{name}" for name in components]
    image = {"name": "nvcr.io/nvidia/tritonserver", "newName": "r.example/t", "digest": "sha256:1"}
    settings["images"] = [image]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(settings))
    (rollout,) = [each for each in rendering.build(overlay) if each["kind"] == "Rollout"]
    pod = rollout["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "r.example/t@sha256:1"
    assert not pod["nodeSelector"] and not pod["tolerations"]
    assert set(pod["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def test_versions_change_without_a_gap_and_a_bad_one_is_taken_away(environment) -> None:
    spec = environment["Rollout", "triton"]["spec"]
    assert spec["strategy"]["canary"]["maxUnavailable"] == 0
    assert spec["progressDeadlineAbort"] is True
    pauses = [step["pause"] for step in spec["strategy"]["canary"]["steps"] if "pause" in step]
    assert all("duration" in pause for pause in pauses), "an endless pause blocks later commits"
    assert environment["PodDisruptionBudget", "triton"]["spec"]["maxUnavailable"] == 1


def test_a_version_whose_pods_fail_to_start_is_seen_before_the_deadline(environment) -> None:
    spec = environment["Rollout", "triton"]["spec"]
    analysis = spec["strategy"]["canary"]["analysis"]
    assert "startingStep" not in analysis, "from the first step on"
    (named,) = analysis["templates"]
    seen = environment["AnalysisTemplate", named["templateName"]]["spec"]
    (metric,) = seen["metrics"]
    assert metric["interval"] == "10s" and "count" not in metric, "as long as the steps take"
    minute = (metric["failureLimit"] + 1) * 10
    assert minute <= 60 < spec["progressDeadlineSeconds"]
    assert metric["consecutiveErrorLimit"] * 10 > spec["progressDeadlineSeconds"]
    assert [each["metricName"] for each in seen["measurementRetention"]] == [metric["name"]]
    given = {each["name"] for each in analysis["args"]}
    secret = {each["name"] for each in seen["args"] if "valueFrom" in each}
    assert given | secret == {each["name"] for each in seen["args"]} and not given & secret


def test_the_pods_of_a_new_version_are_asked_what_their_model_answered(environment) -> None:
    rollout = environment["Rollout", "triton"]
    (step,) = [
        each["analysis"]
        for each in rollout["spec"]["strategy"]["canary"]["steps"]
        if "analysis" in each
    ]
    template = environment["AnalysisTemplate", step["templates"][0]["templateName"]]["spec"]
    given = {each["name"]: each["valueFrom"] for each in step["args"]}
    assert set(given) == {each["name"] for each in template["args"]}
    pod = rollout["spec"]["template"]["spec"]
    server, model = (given[name]["fieldRef"]["fieldPath"] for name in ("server", "model"))
    assert server == "spec.template.spec.containers[0].image"
    assert pod["containers"][0]["name"] == "triton"
    assert model == "spec.template.spec.volumes[0].image.reference"
    assert pod["volumes"][0]["name"] == "model"
    job = template["metrics"][0]["provider"]["job"]["spec"]
    assert job["backoffLimit"] == 0 and job["activeDeadlineSeconds"]
    asker = job["template"]["metadata"]["labels"]
    leaves = environment["NetworkPolicy", "golden-answers"]["spec"]
    enters = environment["NetworkPolicy", "asked-for-golden-answers"]["spec"]
    chosen = {"app.kubernetes.io/name": asker["app.kubernetes.io/name"]}
    assert leaves["podSelector"]["matchLabels"] == chosen
    assert enters["ingress"][0]["from"] == [{"podSelector": {"matchLabels": chosen}}]
    assert leaves["egress"] == [
        {"to": [{"podSelector": enters["podSelector"]}], "ports": [{"port": "http"}]}
    ]
    scripts = environment["ConfigMap", "golden-answers"]["data"]
    (script,) = [
        Path(each).name for each in job["template"]["spec"]["containers"][0]["command"][1:]
    ]
    assert script in scripts


def test_who_looks_at_the_pods_of_a_new_version_may_only_list_them(environment) -> None:
    role, binding = environment["Role", "pod-reader"], environment["RoleBinding", "pod-reader"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    account = environment["ServiceAccount", "pod-reader"]
    assert subject == {
        "kind": "ServiceAccount",
        "name": account["metadata"]["name"],
        "namespace": account["metadata"]["namespace"],
    }
    assert account["automountServiceAccountToken"] is False


def test_everything_that_selects_pods_selects_the_server(environment, server) -> None:
    labels = environment["Rollout", "triton"]["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"] for port in server["ports"]}
    selectors = [
        environment["Service", "triton"]["spec"]["selector"],
        environment["PodDisruptionBudget", "triton"]["spec"]["selector"]["matchLabels"],
        environment["PodMonitor", "triton"]["spec"]["selector"]["matchLabels"],
        environment["NetworkPolicy", "clients"]["spec"]["podSelector"]["matchLabels"],
        environment["NetworkPolicy", "prometheus"]["spec"]["podSelector"]["matchLabels"],
        environment["Rollout", "triton"]["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    named = {port["targetPort"] for port in environment["Service", "triton"]["spec"]["ports"]}
    (endpoint,) = environment["PodMonitor", "triton"]["spec"]["podMetricsEndpoints"]
    named.add(endpoint["port"])
    for policy in ("clients", "prometheus"):
        (rule,) = environment["NetworkPolicy", policy]["spec"]["ingress"]
        named |= {port["port"] for port in rule["ports"]}
    assert named == ports


def test_traffic_is_denied_unless_allowed(environment) -> None:
    deny = environment["NetworkPolicy", "default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in ("clients", "prometheus"):
        (rule,) = environment["NetworkPolicy", policy]["spec"]["ingress"]
        assert all(source["namespaceSelector"]["matchLabels"] for source in rule["from"])


# -- training --------------------------------------------------------------------------------------


@pytest.fixture
def training(built) -> dict[tuple[str, str], dict]:
    return {(each["kind"], each["metadata"]["name"]): each for each in built["argocd/training"]}


@pytest.fixture
def ray_job(training) -> dict:
    return training["RayJob", "train-3"]


@pytest.fixture
def ray_pods(ray_job) -> dict[str, dict]:
    return pod_templates(ray_job)


def container(pod: dict) -> dict:
    (only,) = pod["spec"]["containers"]
    return only


def test_the_run_is_what_the_job_runs(ray_job, ray_pods) -> None:
    run = yaml.safe_load(rendering.RUN)["data"]
    assert {container(pod)["image"] for pod in ray_pods.values()} == {run["image"]}
    (group,) = ray_job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    sizes = {group[key] for key in ("replicas", "minReplicas", "maxReplicas")}
    assert sizes == {int(run["nodes"])}
    for part in ("head", "gpu"):
        environment = {each["name"]: each["value"] for each in container(ray_pods[part])["env"]}
        gpus = container(ray_pods["gpu"])["resources"]["limits"]["nvidia.com/gpu"]
        assert (environment["NODES"], environment["DEVICES"]) == (run["nodes"], gpus)
        assert environment["ACCELERATOR"] == "gpu", "training waits for the workers"


def test_the_cluster_runs_the_ray_of_the_image(ray_job) -> None:
    version = ray_job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version} " in (UNBAKED / "constraints.txt").read_text()


def test_the_pods_run_as_the_user_of_the_image_and_write_to_memory_and_tmp_only(ray_pods) -> None:
    dockerfile = (UNBAKED / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.M)
    (cache,) = re.findall(r"\bDVC_SITE_CACHE_DIR=(\S+)", dockerfile)
    assert cache.startswith("/tmp/"), "DVC's own choice cannot be written"
    for pod in ray_pods.values():
        assert pod["spec"]["securityContext"]["runAsUser"] == int(user)
        assert container(pod)["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"] for mount in container(pod)["volumeMounts"]}
        assert mounts <= {"/tmp", "/dev/shm"}
        assert all("emptyDir" in volume for volume in pod["spec"]["volumes"])


def test_the_head_works_for_the_workers_on_a_node_without_gpus(ray_job, ray_pods) -> None:
    head = ray_job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    assert "tolerations" not in ray_pods["head"]["spec"]
    assert "nvidia.com/gpu" not in container(ray_pods["head"])["resources"]["limits"]
    worker = ray_pods["gpu"]["spec"]
    assert worker["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [each["key"] for each in worker["tolerations"]] == ["nvidia.com/gpu"]


def test_a_job_ends_and_leaves_no_gpu_behind(ray_job) -> None:
    spec = ray_job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_only_what_trains_has_the_role_of_the_data_store(training, ray_pods) -> None:
    accounts = {part: pod["spec"].get("serviceAccountName") for part, pod in ray_pods.items()}
    assert accounts == {"head": "train", "gpu": "train", "submitter": None}
    assert not any(pod["spec"]["automountServiceAccountToken"] for pod in ray_pods.values())
    (allowed,) = training["NetworkPolicy", "data-store"]["spec"]["podSelector"].values()
    for part, pod in ray_pods.items():
        reaches = allowed.items() <= pod["metadata"]["labels"].items()
        assert reaches == (part != "submitter")


def test_training_may_call_only_what_it_needs(training, ray_pods) -> None:
    policies = {name: each["spec"] for (kind, name), each in training.items() if "Policy" in kind}
    assert policies.pop("default-deny") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    outside = [rule for name in ("names", "data-store") for rule in policies[name]["egress"]]
    ports = [port["port"] for rule in outside for port in rule["ports"]]
    assert ports == [53, 53, 443, 80]
    (https, agent) = policies["data-store"]["egress"]
    assert https["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]
    assert agent["to"] == [{"ipBlock": {"cidr": "169.254.170.23/32"}}]
    (calls,) = policies["operator"]["ingress"]
    named = {port["name"]: port["containerPort"] for port in container(ray_pods["head"])["ports"]}
    assert [named[port["port"]] for port in calls["ports"]] == [8265]
    (peers,) = policies["among-themselves"]["ingress"]
    assert peers == {"from": [{"podSelector": {}}]}


def test_the_operator_that_may_call_the_head_is_the_one_of_the_chart(training, generated) -> None:
    (rule,) = training["NetworkPolicy", "operator"]["spec"]["ingress"]
    (source,) = rule["from"]
    (chart,) = (
        each["spec"]
        for each in generated["controllers"]
        if each["spec"]["source"]["chart"] == "kuberay-operator"
    )
    labels = source["namespaceSelector"]["matchLabels"]
    assert labels == {"kubernetes.io/metadata.name": chart["destination"]["namespace"]}
    pods = source["podSelector"]["matchLabels"]
    assert pods == {"app.kubernetes.io/name": chart["source"]["helm"]["releaseName"]}


def test_a_run_is_one_application_that_neither_repeats_nor_changes_it(generated) -> None:
    (application,) = generated["training"]
    assert application["metadata"]["labels"] == {"training-run": "3"}
    automated = application["spec"]["syncPolicy"]["automated"]
    assert automated == {"enabled": True, "prune": True, "selfHeal": False}
    (ignored,) = application["spec"]["ignoreDifferences"]
    assert (ignored["kind"], ignored["jsonPointers"]) == ("RayJob", ["/spec"])
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]


# -- Argo CD ---------------------------------------------------------------------------------------


def test_what_is_compared_by_the_server_is_applied_by_it(documents) -> None:
    """Or a field that a merge removes is no difference (argoproj/argo-cd#25205)."""
    named = {each["metadata"]["name"]: each for each in documents}
    assert named["argocd-cmd-params-cm"]["data"]["controller.diff.server.side"] == "true"
    found = [each for each in documents if each["kind"] == "Application"]
    assert {"root", "configs", "argo-cd", "keda"} < {each["metadata"]["name"] for each in found}
    options = {
        each["metadata"]["name"]: each["spec"]["syncPolicy"]["syncOptions"] for each in found
    }
    assert [name for name, each in options.items() if "ServerSideApply=true" not in each] == []


def test_a_fresh_project_has_no_environment_to_break(fresh: Project, apps) -> None:
    assert list(fresh.folder.glob("argocd/environments/*/model.yaml")) == []
    for name in ("models", "training"):
        assert rendering.applications(apps["ApplicationSet", name], fresh.folder) == []


@pytest.mark.parametrize("name", [*(f"environments/{each}" for each in ENVIRONMENTS), "training"])
def test_an_overlay_fits_into_twenty_lines(released: Path, name: str) -> None:
    overlay = released / "argocd" / name / "kustomization.yaml"
    assert len(overlay.read_text().splitlines()) <= 20


def test_each_released_environment_is_an_application_that_shows_its_version(generated) -> None:
    found = {each["metadata"]["name"]: each for each in generated["models"]}
    assert set(found) == {f"digit-classifier-{name}" for name in ENVIRONMENTS}
    for name in ENVIRONMENTS:
        application = found[f"digit-classifier-{name}"]
        assert application["metadata"]["labels"] == {"environment": name, "model-version": "8"}
        assert application["spec"]["source"]["path"] == f"argocd/environments/{name}"
        assert application["spec"]["destination"]["namespace"] == f"digit-classifier-{name}"


def test_a_released_environment_tells_people_what_it_serves(generated) -> None:
    release = yaml.safe_load(rendering.RELEASE)["data"]
    for application in generated["models"]:
        address = application["spec"]["source"]["repoURL"].removesuffix(".git")
        path = application["spec"]["source"]["path"]
        told = {each["name"]: each["value"] for each in application["spec"]["info"]}
        assert told == {
            "Version": release["version"],
            "Accuracy": f"{release['accuracy']} of {release['support']} test pictures",
            "Image": release["image"],
            "Model": f"{address}/blob/{release['commit']}/MODEL_CARD.md",
            "Pull requests": f"{address}/commits/main/{path}/model.yaml",
        }


def test_a_line_of_comment_links_an_environment_to_its_figures(released: Path, apps) -> None:
    text = (released / "argocd/apps/models.yaml").read_text()
    (commented,) = re.findall(r"(?m)^ +# - name: Dashboard\n(?: +#   .*\n)+", text)
    (told,) = yaml.safe_load(re.sub(r"(?m)^ +# ", "", commented))
    models = copy.deepcopy(apps["ApplicationSet", "models"])
    models["spec"]["template"]["spec"]["info"] = [told]
    dashboard = observed.DASHBOARDS["model"]
    (variable,) = (each["name"] for each in dashboard["templating"]["list"])
    made = rendering.applications(models, released)
    assert len(made) == len(ENVIRONMENTS)
    for application in made:
        (link,) = application["spec"]["info"]
        namespace = application["spec"]["destination"]["namespace"]
        path = f"/d/{dashboard['uid']}?var-{variable}={namespace}"
        assert link["value"] == f"https://grafana.example.com{path}"


def test_a_release_file_further_down_deploys_nothing(released: Path, apps, tmp_path: Path) -> None:
    shutil.copytree(released / "argocd", tmp_path / "argocd")
    for folder in ("argocd/environments/a/b", "argocd/environments"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "model.yaml").write_text(rendering.RELEASE)
    made = rendering.applications(apps["ApplicationSet", "models"], tmp_path)
    assert {each["metadata"]["labels"]["environment"] for each in made} == set(ENVIRONMENTS)


def test_a_template_never_fills_in_a_missing_value(apps, generated) -> None:
    for (kind, name), document in apps.items():
        if kind == "ApplicationSet":
            assert document["spec"]["goTemplate"] is True
            assert document["spec"]["goTemplateOptions"] == ["missingkey=error"]
            assert generated[name]


def test_replicas_are_left_to_an_autoscaler(generated, environment) -> None:
    assert environment["Rollout", "triton"]["spec"]["replicas"] >= 1
    for application in generated["models"]:
        (ignored,) = [
            each for each in application["spec"]["ignoreDifferences"] if each["kind"] == "Rollout"
        ]
        assert ignored["jsonPointers"] == ["/spec/replicas"]
        assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]


def allowed(project: dict, application: dict) -> bool:
    spec = application["spec"]
    return spec["source"]["repoURL"] in project["spec"]["sourceRepos"] and reaches(
        project, spec["destination"]["server"], spec["destination"]["namespace"]
    )


def reaches(project: dict, server: str, namespace: str) -> bool:
    """Whether a destination matches, as Argo CD has it: with `!` it takes all others."""
    places = project["spec"]["destinations"]
    here = [place["namespace"] for place in places if place["server"] == server]
    denied = any(matches(namespace, each[1:]) for each in here if each.startswith("!"))
    return not denied and any(each[0] == "!" or matches(namespace, each) for each in here)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern with at most one list of alternatives in braces matches."""
    before, _, rest = pattern.partition("{")
    inside, _, after = rest.partition("}")
    return any(fnmatch(name, before + each + after) for each in inside.split(","))


@pytest.mark.parametrize(
    ("namespace", "allowed"),
    [
        *(("qa", True), ("staging", True), ("test", True), ("train", True), ("trainings", True)),
        *(("training", False), ("", False)),
    ],
)
def test_models_go_to_namespaces_of_environments_only(apps, namespace: str, allowed: bool) -> None:
    project = apps["AppProject", "models"]
    server = "https://kubernetes.default.svc"
    name = f"digit-classifier-{namespace}".rstrip("-")
    assert reaches(project, server, name) is allowed
    assert not reaches(project, server, "argocd") and not reaches(project, "https://x", name)


def test_every_application_keeps_within_its_project(documents) -> None:
    projects = {
        each["metadata"]["name"]: each for each in documents if each["kind"] == "AppProject"
    }
    applications = [each for each in documents if each["kind"] == "Application"]
    assert len(applications) >= 13
    for each in applications:
        assert allowed(projects[each["spec"]["project"]], each), shown(each)


def wave(document: dict) -> int:
    """In which of a sync's waves Argo CD makes it; of one wave nobody knows the order."""
    annotations = document["metadata"].get("annotations", {})
    return int(annotations.get("argocd.argoproj.io/sync-wave", "0"))


def test_a_project_is_made_before_what_belongs_to_it(apps) -> None:
    """An ApplicationSet that asks for its project too early is Degraded for three minutes."""
    named = {
        each["metadata"]["name"]: each["spec"].get("template", each)["spec"]["project"]
        for (kind, _), each in apps.items()
        if kind in ("Application", "ApplicationSet")
    }
    assert len(named) >= 5
    for (kind, name), each in apps.items():
        if kind != "AppProject":
            assert wave(apps["AppProject", named[name]]) < wave(each), name


def cluster_kinds(project: dict) -> set[tuple[str, str, str | None]]:
    entries = project["spec"]["clusterResourceWhitelist"]
    return {(each["group"], each["kind"], each.get("name")) for each in entries}


def group_kind(document: dict) -> tuple[str, str]:
    group, _, version = document["apiVersion"].rpartition("/")
    assert version
    return group, document["kind"]


@pytest.mark.parametrize(
    ("folder", "project"),
    [
        ("argocd/environments/staging", "models"),
        ("argocd/environments/production", "models"),
        ("argocd/training", "training"),
        ("argocd/base/platform/configs", "platform"),
        ("argocd/base/argo-cd", "platform"),
    ],
)
def test_a_project_allows_exactly_what_it_needs(built, apps, folder: str, project: str) -> None:
    spec = apps["AppProject", project]["spec"]
    cluster = cluster_kinds(apps["AppProject", project])
    namespaced = {(each["group"], each["kind"]) for each in spec["namespaceResourceWhitelist"]}
    used = set()
    for document in built[folder]:
        if document["kind"] == "Namespace":
            named = [name for group, kind, name in cluster if (group, kind) == ("", "Namespace")]
            assert any(fnmatch(document["metadata"]["name"], name) for name in named)
        elif group_kind(document)[1].startswith("ValidatingAdmissionPolicy"):
            assert (*group_kind(document), document["metadata"]["name"]) in cluster
        else:
            used.add(group_kind(document))
    everywhere = {(group, kind) for group, kind, _ in cluster if kind != "Namespace"}
    assert used <= namespaced | everywhere
    if project == "training":
        assert used == namespaced
    for entry in cluster | namespaced:
        found = "".join(filter(None, entry))
        assert "*" not in found or found == "Namespacedigit-classifier-*"


def test_every_chart_is_pinned_and_knows_its_cluster(generated, apps) -> None:
    charts = {each["spec"]["source"]["chart"]: each["spec"] for each in generated["controllers"]}
    assert set(charts) == {
        "argo-rollouts",
        "cluster-autoscaler",
        "dcgm-exporter",
        "keda",
        "kube-prometheus-stack",
        "kuberay-operator",
        "nvidia-device-plugin",
    }
    for spec in charts.values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", spec["source"]["targetRevision"])
        assert "$(" not in spec["source"]["helm"]["values"]
        assert yaml.safe_load(spec["source"]["helm"]["values"])
        namespace = ("", "Namespace", spec["destination"]["namespace"])
        assert namespace in cluster_kinds(apps["AppProject", "platform"])
    values = yaml.safe_load(charts["cluster-autoscaler"]["source"]["helm"]["values"])
    assert values["autoDiscovery"] == {"clusterName": "digit-classifier"}
    assert values["awsRegion"] == "eu-central-1"
    values = yaml.safe_load(charts["kube-prometheus-stack"]["source"]["helm"]["values"])
    (address,) = apps["AppProject", "models"]["spec"]["sourceRepos"]
    labels = values["prometheus"]["prometheusSpec"]["externalLabels"]
    assert labels == {"repository": address.removesuffix(".git")}


def test_argo_cd_itself_is_pinned_to_a_commit(released: Path) -> None:
    text = (released / "argocd/base/argo-cd/kustomization.yaml").read_text()
    (address,) = [each for each in yaml.safe_load(text)["resources"] if each.startswith("https://")]
    assert re.search(r"/argo-cd/[0-9a-f]{40}/manifests/install\.yaml$", address)


def with_webhook(released: Path, tmp_path: Path) -> dict[tuple[str, str], dict]:
    """Argo CD's own manifests as it renders them once the lines of `platform.yaml` count."""
    text = (released / "argocd/apps/platform.yaml").read_text()
    lines = re.search(r"(?m)^    # kustomize:\n(    #.*\n)+", text)
    asked = yaml.safe_load(re.sub(r"(?m)^    # ?", "", lines[0]))["kustomize"]
    return with_components(released, tmp_path, asked["components"], asked["patches"])


def with_components(
    released: Path, tmp_path: Path, components: list[str], patches: list[dict]
) -> dict[tuple[str, str], dict]:
    """Argo CD's own manifests with what its Application adds to them."""
    shutil.copytree(released / "argocd/base", tmp_path / "base")
    folder = tmp_path / "base/argo-cd"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    kustomization["components"] = components
    kustomization["patches"] += patches
    copy = rendering.without_remote(folder, kustomization)
    return {(each["kind"], each["metadata"]["name"]): each for each in rendering.kustomize(copy)}


def test_the_webhook_is_two_endpoints_behind_a_gateway_and_nothing_else(
    released: Path, tmp_path: Path, apps, built
) -> None:
    made = with_webhook(released, tmp_path)
    before = {(each["kind"], each["metadata"]["name"]) for each in built["argocd/base/argo-cd"]}
    assert made.keys() - before - set(rendering.PROGRAMS) == {("HTTPRoute", "webhook")}
    route = made["HTTPRoute", "webhook"]
    assert route["metadata"]["namespace"] == "argocd"
    assert route["spec"]["hostnames"] == ["argocd.example.com"] and route["spec"]["parentRefs"]
    matches = [match for rule in route["spec"]["rules"] for match in rule["matches"]]
    paths = {(match["path"]["type"], match["path"]["value"]) for match in matches}
    assert paths == {("Exact", "/api/webhook")} and {match["method"] for match in matches} == {
        "POST"
    }
    backends = [each for rule in route["spec"]["rules"] for each in rule["backendRefs"]]
    assert [(each["name"], each["port"]) for each in backends] == [
        ("argocd-server", 80),
        ("argocd-applicationset-controller", 7000),
    ]
    allowed_kinds = apps["AppProject", "platform"]["spec"]["namespaceResourceWhitelist"]
    assert {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"} in allowed_kinds


def test_github_is_told_of_environments_and_of_nothing_else(
    released: Path, tmp_path: Path, generated
) -> None:
    made = with_components(released, tmp_path, ["../components/notifications"], [])
    settings = made["ConfigMap", "argocd-notifications-cm"]["data"]
    known = {key: yaml.safe_load(text) for key, text in settings.items()}
    assert all(each.startswith("$github-") for each in known["service.github"].values())
    (subscription,) = known["subscriptions"]
    assert subscription["recipients"] == ["github"]
    triggers = [known[f"trigger.{each}"] for each in subscription["triggers"]]
    sent = {name for conditions in triggers for each in conditions for name in each["send"]}
    assert {f"template.{each}" for each in sent} == {key for key in known if "template." in key}
    for name in sent:
        told = known[f"template.{name}"]["github"]
        assert told["status"]["label"] == "{{.app.metadata.labels.environment}}/healthy"
    told = {
        kind: [set(subscription["selector"].split(",")) <= {*each["metadata"].get("labels", {})}]
        for kind, applications in generated.items()
        for each in applications
    }
    assert {kind for kind, is_told in told.items() if all(is_told)} == {"models"}


def arguments(made: dict[tuple[str, str], dict], name: str, kind: str = "Deployment") -> list[str]:
    return made[kind, name]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_the_server_is_without_tls_behind_a_gateway_only(released: Path, tmp_path: Path) -> None:
    made = with_webhook(released, tmp_path)
    assert arguments(made, "argocd-server") == ["/usr/local/bin/argocd-server", "--insecure"]
    kustomization = yaml.safe_load((tmp_path / "base/argo-cd/kustomization.yaml").read_text())
    plain = rendering.kustomize(rendering.without_remote(tmp_path / "base/argo-cd", kustomization))
    without = {(each["kind"], each["metadata"]["name"]): each for each in plain}
    assert "--insecure" not in arguments(without, "argocd-server")
    assert "--revision-cache-expiration=10s" in arguments(without, "argocd-repo-server")
    controller = arguments(without, "argocd-application-controller", "StatefulSet")
    assert "--metrics-application-labels=model-version" in controller


def test_the_root_leads_to_the_applications_and_to_nothing_else(released: Path) -> None:
    project, application = yaml.safe_load_all((released / "argocd/root.yaml").read_text())
    assert (released / application["spec"]["source"]["path"] / "kustomization.yaml").is_file()
    assert allowed(project, application)
    kinds = {each["kind"] for each in project["spec"]["namespaceResourceWhitelist"]}
    assert kinds == {"AppProject", "Application", "ApplicationSet"}


def test_a_restart_of_prometheus_loses_nothing_and_its_disk_goes_with_it() -> None:
    platform = TEMPLATE / "argocd/platform"
    chart = yaml.safe_load((platform / "controllers/kube-prometheus-stack.yaml").read_text())
    settings = chart["settings"]["prometheus"]["prometheusSpec"]
    claim = settings["storageSpec"]["volumeClaimTemplate"]["spec"]
    made = rendering.build(platform / "configs")
    (disk,) = (each for each in made if each["kind"] == "StorageClass")
    assert claim["storageClassName"] == disk["metadata"]["name"]
    assert disk["provisioner"] == "ebs.csi.aws.com"
    assert disk["parameters"] == {"type": "gp3", "encrypted": "true"}
    assert disk["reclaimPolicy"] == "Delete"
    kept = int(settings["retentionSize"].removesuffix("GB"))
    gib = int(claim["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert kept <= 0.8 * gib, "the newest has no room"
    assert settings["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    addons = (TEMPLATE / "infra/gpu_cluster/addons.tf").read_text()
    assert '"aws-ebs-csi-driver"' in addons


def test_rollouts_to_try_has_the_settings_of_the_chart() -> None:
    chart = yaml.safe_load(
        (TEMPLATE / "argocd/platform/controllers/argo-rollouts.yaml").read_text()
    )
    settings = chart["settings"]["controller"]
    file = TEMPLATE / "delivery/cluster/argo-rollouts/kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    tried = programs.programs()["rollouts-controller"].version
    versions = {each["newTag"] for each in kustomization["images"]}
    assert versions == {settings["image"]["tag"], tried}
    targets = {each["target"]["name"]: each for each in kustomization["patches"]}
    patch = targets["argo-rollouts"]
    (container,) = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["containers"]
    assert container["args"] == settings["extraArgs"]
    assert container["env"] == settings["extraEnv"]
