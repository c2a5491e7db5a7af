"""Pull requests that must not be merged, each with the sentence that says why; and good ones."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import fake_pipeline
from conftest import TEMPLATE, UNBAKED
from delivery.__main__ import main
from delivery.checks import programs, rehearsal
from delivery.checks.changes import read_changes
from delivery.checks.findings import LONGEST
from delivery.checks.judge import Bench, Verdict
from delivery.checks.rehearsal import Check, Rehearsal
from delivery.checks.report import report
from delivery.checks.witnesses import Witnesses
from delivery.git import Repository
from delivery.proposals.health import Health
from delivery.proposals.release_file import Release, parse_release
from delivery.proposals.releases import release_path
from delivery.proposals.run_file import RUN_FILE
from delivery.proposals.signing import signed
from delivery.triton import load
from pull_requests import BENCH, KEY, PRODUCTION, STAGING, Repo, make_repository, rehearsed, run
from tiny import write_repository
from workspace.settings import LARGEST, SMALL

OVERLAY = "argocd/environments/staging/kustomization.yaml"
ROLLOUT = "argocd/base/triton/rollout.yaml"
MODELS = "argocd/apps/models.yaml"
WORKFLOW = ".github/workflows/checks.yaml"
Change = Callable[[Repo], object]


@dataclass(frozen=True)
class Case:
    """A change, and what refuses it: the place and a part of the sentence."""

    change: Change
    place: str
    sentence: str
    base: str = "main"
    bench: Bench = BENCH


BAD: dict[str, Case] = {}
GOOD: dict[str, Case] = {}


def bad(place: str, sentence: str, base: str = "main", bench: Bench = BENCH):
    """Take a change as a bad pull request, named after its reason."""

    def take(change: Change) -> Change:
        BAD[change.__name__] = Case(change, place, sentence, base, bench)
        return change

    return take


def good(base: str = "main", bench: Bench = BENCH):
    """Take a change as a good pull request."""

    def take(change: Change) -> Change:
        GOOD[change.__name__] = Case(change, "", "", base, bench)
        return change

    return take


def asked(**witnesses: object) -> Bench:
    return replace(BENCH, witnesses=Witnesses(**witnesses))  # type: ignore[arg-type]


def healthy_for(hours: float) -> Bench:
    lasted = timedelta(hours=hours)
    return asked(health=lambda commits, status: Health(True, datetime.now(UTC) - lasted))


def served(repo: Repo, path: str = STAGING):
    return parse_release(repo.text(path), path)


def earlier(repo: Repo, version: int, path: str = STAGING) -> str:
    """The release file of a version, as it was."""
    commit = repo.git("log", "--format=%H", f"--grep=Release model {version}$", "main")
    return repo.git("show", f"{commit}:{path}") + "\n"


def promote(repo: Repo) -> None:
    shutil.copy(repo.folder / STAGING, repo.folder / PRODUCTION)


# -- releases --------------------------------------------------------------------------------------


@bad(f"{STAGING}, line 7", "the image is in 'evil.io/model', and this project's are in 'oci:.local")
def image_in_a_foreign_registry(repo: Repo) -> None:
    made = repo.candidate(4, 0.98)
    repo.propose(made.model_copy(update={"image": f"evil.io/model@{made.digest}"}))


@bad(f"{STAGING}, line 8", "accuracy is 0.999 here and 0.98 in the image")
def accuracy_written_by_hand(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98).model_copy(update={"accuracy": 0.999}))


@bad(f"{STAGING}, line 8", "claims accuracy 0.99, and its own answers to the 200 test pictures")
def harmless_image_that_claims_more_than_it_answers(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.97, claimed=0.99))


@bad(f"{STAGING}, line 8", "min_accuracy: accuracy 0.85 is below the floor 0.9")
def below_the_floor(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.85))


@bad(f"{STAGING}, line 8", "min_accuracy: accuracy 0.98 is below the floor 0.99", "later")
def harmless_branch_from_before_the_floor_was_raised(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--detach", "main")
    repo.propose(repo.candidate(4, 0.98))


@bad(f"{STAGING}, line 1", "nothing else, and here params.yaml changes, too: propose that apart")
def lower_floor_in_the_release_itself(repo: Repo) -> None:
    repo.edit("params.yaml", "min_accuracy: 0.9", "min_accuracy: 0.8")
    repo.propose(repo.candidate(4, 0.85))
    repo.edit("params.yaml", "min_accuracy: 0.9", "min_accuracy: 0.8")


@bad(f"{STAGING}, line 8", "not worse than released: accuracy 0.92 is below 0.97 of the released")
def harmless_worse_than_what_is_served(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.92))


@bad(f"{STAGING}, line 1", "nothing else, and here README.md changes, too")
def harmless_a_text_beside_the_release(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))
    repo.write("README.md", "# Digits\n\nNow better.\n")


@bad(f"{PRODUCTION}, line 1", f"nothing else, and here {STAGING} changes, too")
def both_environments_at_once(repo: Repo) -> None:
    made = repo.candidate(4, 0.98)
    repo.propose(made)
    repo.propose(made, PRODUCTION)


@bad(f"{STAGING}, line 6", "model 5 is not the next, which is 4")
def version_that_is_not_the_next(repo: Repo) -> None:
    repo.propose(repo.candidate(5, 0.98))


@bad(f"{STAGING}, line 1", "is too large: at most 65,536 bytes are read; or restore the file from")
def release_file_that_is_huge(repo: Repo) -> None:
    repo.write(STAGING, "#" * (SMALL + 1))


@bad(f"{STAGING}, line 6", "model 3 was released with the image sha256:")
def version_with_another_image(repo: Repo) -> None:
    repo.propose(repo.candidate(3, 0.98))


@bad(
    f"{STAGING}, line 6", "this image was released as model 2, and a version's image never changes"
)
def image_of_another_version(repo: Repo) -> None:
    old = parse_release(earlier(repo, 2), STAGING)
    repo.propose(old.model_copy(update={"version": 4}))


@bad(f"{STAGING}, line 16", "is not in the base's history, so nobody could make the model again")
def commit_that_is_only_on_the_branch(repo: Repo) -> None:
    repo.git("commit", "--quiet", "--allow-empty", "-m", "Train elsewhere")
    repo.propose(repo.candidate(4, 0.98))


@bad(f"{STAGING}, line 15", "the model was made by code eeeeeeeeeeee, and commit")
def code_of_nobody(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98).model_copy(update={"code": "e" * 64}))


@bad(f"{STAGING}, line 12", """and not '  support: "200"', as `make release` writes it""")
def harmless_number_in_other_quotes(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))
    repo.edit(STAGING, 'support: "200"', "support: '200'")


@bad(f"{STAGING}, line 17", "it is '# fine' and not '', as `make release` writes it: a release")
def harmless_comment_at_the_end(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))
    repo.write(STAGING, repo.text(STAGING) + "# fine\n")


@bad(f"{STAGING}, line 17", "it is 'the end of the file' and not '', as `make release` writes it")
def harmless_file_without_its_last_newline(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))
    repo.write(STAGING, repo.text(STAGING).rstrip())


@bad(f"{STAGING}, line 6", "version is 4, not text: write it in double quotes")
def version_without_quotes(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))
    repo.edit(STAGING, 'version: "4"', "version: 4")


@bad(f"{STAGING}, line 1", "a link, a program or a submodule (mode 120000), and not a plain file")
def link_to_another_environment_s_release(repo: Repo) -> None:
    (repo.folder / STAGING).unlink()
    (repo.folder / STAGING).symlink_to("../production/model.yaml")


@bad(f"{STAGING}, line 1", "the release file would be gone: `make rollback` serves an earlier")
def release_that_is_removed(repo: Repo) -> None:
    (repo.folder / STAGING).unlink()


@bad("argocd/environments/canary/model.yaml, line 1", "the base has no environment 'canary'")
def environment_that_nobody_made(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98), release_path("canary"))


@bad(f"{STAGING}, line 6", "staging had model 2, but never this file: `make rollback` proposes")
def harmless_rollback_with_a_better_figure(repo: Repo) -> None:
    repo.write(STAGING, earlier(repo, 2).replace('macro_f1: "0.96"', 'macro_f1: "0.97"'))


@bad(
    f"{PRODUCTION}, line 6", "production gets byte for byte the file of staging, which has model 3"
)
def promotion_of_what_staging_never_had(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98), PRODUCTION)


@bad(
    f"{PRODUCTION}, line 6",
    "release.require_healthy of the base's params.yaml asks for that",
    "strict",
)
def promotion_of_which_nobody_knows_whether_it_is_healthy(repo: Repo) -> None:
    promote(repo)


@bad(
    f"{PRODUCTION}, line 6",
    "3.0 hours, and release.soak of the base's params.yaml asks for 24",
    "strict",
    healthy_for(3),
)
def promotion_too_early(repo: Repo) -> None:
    promote(repo)


@bad(
    f"{PRODUCTION}, line 6",
    "staging/healthy says that staging does not serve model 3 well",
    bench=asked(health=lambda commits, status: Health(False, datetime.now(UTC))),
)
def promotion_of_what_staging_does_not_serve(repo: Repo) -> None:
    promote(repo)


@bad(f"{STAGING}, line 7", "model 4 is unsigned, and release.require_signature in", "signed")
def image_that_nobody_signed(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))


@bad(f"{STAGING}, line 17", "accuracy is '0.98' in the release file and '0.97' in what", "signed")
def harmless_figure_changed_after_it_was_signed(repo: Repo) -> None:
    made = signed(repo.candidate(4, 0.97), KEY)
    repo.propose(made.model_copy(update={"accuracy": 0.98}))


@bad(f"{STAGING}, line 1", "does not hold sha256:5555")
def image_that_is_not_in_the_registry(repo: Repo) -> None:
    made = repo.candidate(4, 0.98)
    repo.propose(made.model_copy(update={"image": f"oci:.local/registry@sha256:{'5' * 64}"}))


@bad(f"{STAGING}, line 8", "not compared: the figures of this model and of the served model 3")
def harmless_test_pictures_of_its_own(repo: Repo) -> None:
    repo.train(0.98)
    answers = repo.text("artifacts/predictions.csv").replace("\n0000", "\n1111")
    repo.write("artifacts/predictions.csv", answers)
    repo.propose(repo.packaged(4))


@bad(f"{STAGING}, line 7", "labels: 1 one -> eins")
def labels_that_clients_do_not_know(repo: Repo) -> None:
    repo.train(0.98)
    repo.write("artifacts/model/classifier/labels.txt", "zero\neins\n")
    repo.propose(repo.packaged(4))


def wrong_answers(changes, proposed, work) -> Rehearsal:
    made = rehearsed(changes, proposed, work)
    made.checks.append(Check("grpc, batches of 7", False, "12 of 64 golden answers"))
    return made


@bad(
    f"{STAGING}, line 7",
    "grpc, batches of 7: 12 of 64",
    bench=replace(BENCH, rehearse=wrong_answers),
)
def model_that_answers_otherwise_than_recorded(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))


def no_triton(changes, proposed, work) -> Rehearsal:
    raise RuntimeError("tritonserver was killed")


@bad(
    "rehearsal could not be judged",
    "tritonserver was killed",
    bench=replace(BENCH, rehearse=no_triton),
)
def rehearsal_that_crashes_is_no_pass(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))


# -- manifests -------------------------------------------------------------------------------------


@bad(
    f"{ROLLOUT}, line of control-mode=explicit",
    "Triton gets ['--model-control-mode=explicit']",
)
def models_that_callers_load(repo: Repo) -> None:
    repo.edit(ROLLOUT, "control-mode=none", "control-mode=explicit")


@bad(
    f"{ROLLOUT}, line of --model-con=explicit",
    "Triton gets ['--model-control-mode=none', '--model-con=explicit'] and not",
)
def models_that_callers_load_by_a_shorter_word(repo: Repo) -> None:
    more = "--http-port=8000\n            - --model-con=explicit"
    repo.edit(ROLLOUT, "--http-port=8000", more)


@bad(f"{ROLLOUT}, line of --allow-client-shm=true", "a client on its machine could end it")
def harmless_memory_that_is_shared(repo: Repo) -> None:
    repo.edit(ROLLOUT, "--allow-client-shm=false", "--allow-client-shm=true")


@bad(f"{ROLLOUT}, line of value: known", "ADMINISTRATION is not of a Secret alone")
def administration_by_a_known_value(repo: Repo) -> None:
    text = repo.text(ROLLOUT)
    secret = re.search(r"(?m)^ +valueFrom:\n +secretKeyRef: .*name: triton-adm.*$", text)[0]
    repo.edit(ROLLOUT, secret, "              value: known")


@bad(f"{OVERLAY}, line 11", "runs 'docker.io/triton/tritonserver:v1', whose name no manifest of")
def harmless_server_image_of_another_registry(repo: Repo) -> None:
    other = (
        "{name: nvcr.io/nvidia/tritonserver, newName: docker.io/triton/tritonserver, newTag: v1}"
    )
    repo.edit(OVERLAY, "patches:\n", f"images: [{other}]\npatches:\n")


@bad(
    f"{ROLLOUT}, line of docker.io/somebody/triton",
    "(answers) runs '{{args.server}}', whose name",
)
def harmless_image_for_the_analysis(repo: Repo) -> None:
    old = '{fieldRef: {fieldPath: "spec.template.spec.containers[0].image"}}'
    repo.edit(ROLLOUT, f"valueFrom: {old}", "value: docker.io/somebody/triton:v1")


@bad(f"{ROLLOUT}, line of tritonserver:latest", "which is another image tomorrow: name its version")
def harmless_newest_server(repo: Repo) -> None:
    repo.edit(ROLLOUT, "tritonserver:26.07-py3", "tritonserver:latest")


@bad(f"{ROLLOUT}, line of privileged: true", "the Pod Security level restricted by privileged")
def server_with_all_rights(repo: Repo) -> None:
    repo.edit(ROLLOUT, "readOnlyRootFilesystem: true", "privileged: true")


@bad(f"{ROLLOUT}, line of hostNetwork", "breaks the Pod Security level restricted by hostNetwork")
def server_in_the_node_s_network(repo: Repo) -> None:
    repo.edit(ROLLOUT, "enableServiceLinks: false", "hostNetwork: true")


@bad(f"{ROLLOUT}, line of --http-restricted-api", "callers could administer")
def administration_for_everyone(repo: Repo) -> None:
    repo.edit(ROLLOUT, "shared-memory,model-config", "shared-memory")


@bad("argocd/base/triton/namespace.yaml, line 6", "gets the Pod Security level 'privileged'")
def namespace_that_allows_everything(repo: Repo) -> None:
    repo.edit("argocd/base/triton/namespace.yaml", "enforce: restricted", "enforce: privileged")


@bad("argocd/base/platform/controllers/keda.yaml, line 6", "the namespace of keda gets the Pod Sec")
def harmless_chart_in_a_privileged_namespace(repo: Repo) -> None:
    repo.edit("argocd/base/platform/controllers/keda.yaml", "restricted", "privileged")


@bad("argocd/environments/staging/rights.yaml, line 2", "ClusterRoleBinding is a kind of the whole")
def rights_in_the_whole_cluster(repo: Repo) -> None:
    rights = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "triton"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "triton", "namespace": "digits-staging"}],
    }
    repo.write("argocd/environments/staging/rights.yaml", yaml.safe_dump(rights))
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - rights.yaml\n")


@bad(
    f"{MODELS}, line of github.com/evil",
    "repoURL is 'https://github.com/evil/digits.git', a source that no",
)
def manifests_of_another_repository(repo: Repo) -> None:
    text = repo.text(MODELS)
    source = "      source:\n        repoURL: "
    repo.write(
        MODELS,
        text.replace(f'{source}"https://github.com/example', f'{source}"https://github.com/evil'),
    )


@bad(
    "argocd/base/platform/controllers/keda.yaml, line 4",
    "repository is 'https://charts.example.com/keda', a source that no manifest of the base has",
)
def harmless_chart_from_elsewhere(repo: Repo) -> None:
    keda = "argocd/base/platform/controllers/keda.yaml"
    line = next(each for each in repo.text(keda).splitlines() if each.startswith("repository:"))
    repo.edit(keda, line, "repository: https://charts.example.com/keda")


@bad(f"{MODELS}, line 9", "sourceRepos is '*', a source that no manifest of the base has")
def project_that_takes_any_repository(repo: Repo) -> None:
    repo.edit(
        MODELS, 'sourceRepos: ["https://github.com/example/digits.git"]', 'sourceRepos: ["*"]'
    )


@bad(f"{MODELS}, line 65", "project is 'default', a source that no manifest of the base has")
def harmless_default_project(repo: Repo) -> None:
    repo.edit(MODELS, "project: models", "project: default")


@bad(
    f"{MODELS}, line of targetRevision: next",
    "targetRevision is 'next', a source that no manifest of the base has",
)
def harmless_another_branch(repo: Repo) -> None:
    repo.edit(MODELS, "targetRevision: main", "targetRevision: next")


@bad(
    "argocd/apps/training.yaml, line 11", "an AppProject would allow namespace: *, server: https://"
)
def project_that_writes_everywhere(repo: Repo) -> None:
    repo.edit("argocd/apps/training.yaml", 'namespace: "digits-training"', 'namespace: "*"')


@bad(f"{OVERLAY}, line 8", "takes 'https://example.com/more.yaml', which is not in this repository")
def resource_from_the_internet(repo: Repo) -> None:
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - https://example.com/more.yaml\n")


@bad("argocd/environments/staging/more/Kustomization, line 2", "takes 'github.com/evil/more'")
def harmless_kustomization_of_another_name(repo: Repo) -> None:
    folder = "argocd/environments/staging/more"
    repo.write(f"{folder}/Kustomization", "resources:\n  - github.com/evil/more\n")
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - more\n")


@bad(f"{OVERLAY}, line 12", "takes 'https://example.com/patch.yaml', which is not in this")
def patch_from_the_internet(repo: Repo) -> None:
    repo.edit(OVERLAY, "patches:\n", "patches:\n  - path: https://example.com/patch.yaml\n")


@bad("argocd/apps/kustomization.yaml, line ", "sourceRepos is 'https://github.com/evil/more', a")
def harmless_patch_of_a_project(repo: Repo) -> None:
    patch = (
        '[{"op": "add", "path": "/spec/sourceRepos/-", "value": "https://github.com/evil/more"}]'
    )
    lines = f"patches:\n  - target: {{kind: AppProject, name: models}}\n    patch: '{patch}'\n"
    apps = "argocd/apps/kustomization.yaml"
    repo.write(apps, repo.text(apps) + lines)


@bad(f"{ROLLOUT}, line of replicass", "'replicass' was unexpected")
def harmless_key_with_a_typo(repo: Repo) -> None:
    repo.edit(ROLLOUT, "  replicas: 2", "  replicass: 2")


@bad(f"{OVERLAY}, line 8", "missing.yaml")
def resource_that_is_not_there(repo: Repo) -> None:
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - missing.yaml\n")


@bad(f"{OVERLAY}, line 9", "but the release is version 3 of oci:.local/registry")
def overlay_that_no_longer_follows_its_release(repo: Repo) -> None:
    repo.edit(OVERLAY, "  - ../../base/components/release\n", "")


@bad("argocd/apps/more.yaml, line 1", "is a link to '/etc/passwd', which leads out of argocd")
def link_that_leads_out(repo: Repo) -> None:
    (repo.folder / "argocd/apps/more.yaml").symlink_to("/etc/passwd")


@bad(
    f"{RUN_FILE}, line 8",
    "run 1 is not the next, which is 2: what was there would not run",
    "later",
)
def harmless_run_of_a_number_that_was_there(repo: Repo) -> None:
    repo.write(RUN_FILE, run(1).model_copy(update={"nodes": 3}).to_yaml())


@bad(f"{RUN_FILE}, line 6", "run 3 is not the next, which is 2", "later")
def harmless_run_of_a_number_that_was_skipped(repo: Repo) -> None:
    repo.write(RUN_FILE, run(3).to_yaml())


@bad(f"{RUN_FILE}, line 10", "it is '# on the large machines' and not '', as `make train-on-clust")
def harmless_comment_below_a_run(repo: Repo) -> None:
    repo.write(RUN_FILE, run(1).to_yaml() + "# on the large machines\n")


# -- data, code, infrastructure, workflows ---------------------------------------------------------


@bad("data/splits.csv, line 9", "goes from test to train: a picture keeps its split")
def harmless_test_picture_to_learn_from(repo: Repo) -> None:
    repo.edit("data/splits.csv", "0000000000000007,test", "0000000000000007,train")


@bad("dvc.lock, line 12", "metrics.json is not what stage export wrote: run `make pipeline`")
def harmless_figure_that_is_corrected(repo: Repo) -> None:
    metrics = fake_pipeline.read(repo.folder, "metrics.json")
    fake_pipeline.write(repo.folder, "metrics.json", metrics | {"accuracy": 0.99})


@bad("dvc.lock, line 20", "stage export ran with other values of train (epochs 3, now 9)")
def outputs_of_other_parameters(repo: Repo) -> None:
    repo.edit("params.yaml", "epochs: 3", "epochs: 9")
    repo.write("dvc.lock", repo.text("dvc.lock") + "# merged\n")


@bad("params.yaml, line 1", "there is no 'gate.min_acuracy': did you mean 'min_accuracy'?")
def floor_with_a_typo(repo: Repo) -> None:
    repo.edit("params.yaml", "min_accuracy", "min_acuracy")


@bad("src/classifier/networks.py, line 2", "`make lint` fails: import os")
def code_that_lint_refuses(repo: Repo) -> None:
    repo.write("src/classifier/networks.py", "LAYERS = 2\nimport os\n")


@bad("tests/test_model.py, line 1", "`make test` fails: wrong = True")
def code_whose_tests_fail(repo: Repo) -> None:
    repo.write("tests/test_model.py", "wrong = True\n")


@bad("tests/test_model.py, line 1", "`make test` fails: wrong = True")
def failing_tests_behind_another_makefile(repo: Repo) -> None:
    repo.write("tests/test_model.py", "wrong = True\n")
    repo.write("Makefile", "lint test:\n\ttrue\n")


def linters(command, folder) -> programs.Ended:
    """Stand in for actionlint and zizmor, which find nothing."""
    return programs.Ended(0, "")


LINTERS = replace(BENCH, run=linters)


@bad(f"{WORKFLOW}, line 2", "pull_request_target runs with the base's secrets", bench=LINTERS)
def workflow_that_lends_its_secrets(repo: Repo) -> None:
    repo.edit(WORKFLOW, "on: pull_request", "on: pull_request_target")


@bad(f"{WORKFLOW}, line 3", "workflow_run runs with the base's secrets", bench=LINTERS)
def workflow_that_follows_a_stranger_s(repo: Repo) -> None:
    repo.edit(WORKFLOW, "on: pull_request", "on:\n  workflow_run: {workflows: [build]}")


@bad(
    '.github/workflows/prüf"en.yaml, line 2',
    "pull_request_target runs with the base's secrets",
    bench=LINTERS,
)
def harmless_workflow_with_a_name_that_git_quotes(repo: Repo) -> None:
    text = repo.text(WORKFLOW).replace("on: pull_request", "on: pull_request_target")
    repo.write('.github/workflows/prüf"en.yaml', text)


@bad(
    f"{WORKFLOW}, line 8",
    "actions/checkout is taken by 'v7', which can be moved: give its commit",
    bench=LINTERS,
)
def harmless_action_by_its_tag(repo: Repo) -> None:
    repo.edit(WORKFLOW, "@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7")


@bad(f"{WORKFLOW}, line 8", "actions/checkout is taken by 'main', which can be", bench=LINTERS)
def action_by_its_branch_in_another_form(repo: Repo) -> None:
    commit = "uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1"
    repo.edit(WORKFLOW, commit, '{"uses": actions/checkout@main}')


@bad(f"{WORKFLOW}, line 9", "docker://alpine is taken by '3', which can be moved", bench=LINTERS)
def image_by_its_tag(repo: Repo) -> None:
    repo.edit(WORKFLOW, "      - run", "      - uses: docker://alpine:3\n      - run")


@bad(f"{WORKFLOW}, line 2", "pull_request_target runs with the base's secrets", bench=LINTERS)
def harmless_trigger_in_escapes(repo: Repo) -> None:
    repo.edit(WORKFLOW, "pull_request", '{push: {tags: ["#"]}, "pull_request\\x5ftarget": }')


def saying(name: str, text: str) -> Bench:
    """Have a program that is called with a word say something, and fail; all others end well."""

    def run(command, folder) -> programs.Ended:
        is_asked = name in command and "--version" not in command
        return programs.Ended(1, text) if is_asked else programs.Ended(0, "")

    return replace(BENCH, run=run)


@bad(
    f"{WORKFLOW}, line 9",
    "zizmor: code injection via template expansion",
    # only if it is not told by the pull request's own file what to leave out
    bench=saying(
        "--no-config",
        f"::error file={WORKFLOW},line=9,title=template-injection::checks.yaml:9: code injection "
        "via template expansion: may expand into attacker-controllable code\n",
    ),
)
def harmless_title_in_a_script_with_zizmor_silenced(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "echo ${{ github.event.pull_request.title }}")
    repo.write(".github/zizmor.yml", "rules: {template-injection: {disable: true}}\n")


@bad(
    f"{WORKFLOW}, line 9",
    "'zizmor: ignore[template-injection]' has a linter pass over what it finds; if it is",
    bench=LINTERS,
)
def harmless_title_in_a_script_with_a_comment(repo: Repo) -> None:
    title = "${{ github.event.pull_request.title }} # zizmor: ignore[template-injection]"
    repo.edit(WORKFLOW, "make lint", f"echo {title}")


@bad(
    f"{WORKFLOW}, line 10",
    "'shellcheck disable=SC2086' has a linter pass over what it finds",
    bench=LINTERS,
)
def script_with_a_comment_to_shellcheck(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "|\n          # shellcheck disable=SC2086\n          rm $A")


@bad(
    f"{WORKFLOW}, line 9",
    'actionlint: property "evnt" is not defined in object type',
    bench=saying(
        "-no-color", f'{WORKFLOW}:9:20: property "evnt" is not defined in object type {{action}}\n'
    ),
)
def workflow_that_reads_what_is_not_there(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "echo ${{ github.evnt.name }}")


@bad(
    "not run: zizmor",
    "fatal: no audit was performed",
    bench=saying("--no-config", "fatal: no audit was performed"),
)
def workflow_at_which_a_linter_breaks(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "make test")


def terraform(command, folder) -> programs.Ended:
    """Stand in for Terraform: formatting is its own, the rest ends well."""
    is_format = "fmt" in command
    return programs.run(command, folder) if is_format else programs.Ended(0, "")


TERRAFORM = replace(BENCH, run=terraform)


@bad("infra/registry/main.tf, line 1", "`terraform fmt` would write it otherwise", bench=TERRAFORM)
def infrastructure_that_is_not_formatted(repo: Repo) -> None:
    repo.edit("infra/registry/main.tf", "type        =", "type =")


def failing(command, folder) -> programs.Ended:
    text = "Error: Unsupported argument\n\n  on main.tf line 2, in variable\n"
    return programs.Ended(1, text) if "validate" in command else terraform(command, folder)


@bad(
    "infra/registry/main.tf, line 2",
    "`terraform validate`: Unsupported argument",
    bench=replace(BENCH, run=failing),
)
def infrastructure_that_is_not_valid(repo: Repo) -> None:
    repo.edit("infra/registry/main.tf", "description = ", "sensible    = ")


def by_terraform(command, folder) -> programs.Ended:
    """Have the real Terraform do all but what checkov would."""
    return programs.run(command, folder) if command[0] == "terraform" else programs.Ended(0, "")


TEST = """\
run "a_name_is_taken" {
  command = plan
  variables {
    name = "digits"
  }
  assert {
    condition     = var.name == "other"
    error_message = "The name is another."
  }
}
"""


@bad(
    "infra/registry/name.tftest.hcl, line 7",
    "`terraform test`: Test assertion failed",
    bench=replace(BENCH, run=by_terraform),
)
def infrastructure_whose_tests_fail(repo: Repo) -> None:
    repo.write("infra/registry/name.tftest.hcl", TEST)


def insecure(command, folder) -> programs.Ended:
    """Say what checkov says of a bucket, unless a file of the checkout tells it not to."""
    if "checkov" not in command:
        return terraform(command, folder)
    told = (folder / "infra/.checkov.yaml").exists()
    found = """\
Check: CKV_AWS_18: "Ensure the S3 bucket has access logging enabled"
\tFAILED for resource: aws_s3_bucket.data
\tFile: /registry/main.tf:6-8
"""
    return programs.Ended(0, "") if told else programs.Ended(1, found)


@bad(
    "infra/registry/main.tf, line 6",
    "checkov CKV_AWS_18: Ensure the S3 bucket has access logging enabled",
    bench=replace(BENCH, run=insecure),
)
def harmless_bucket_with_checkov_silenced(repo: Repo) -> None:
    bucket = 'resource "aws_s3_bucket" "data" {\n  bucket = var.name\n}\n'
    repo.write("infra/registry/main.tf", f"{repo.text('infra/registry/main.tf')}\n{bucket}")
    repo.write("infra/.checkov.yaml", "skip-check: [CKV_AWS_18]\n")


@bad(
    "infra/registry/main.tf, line 7",
    "'checkov:skip=CKV_AWS_18' has a linter pass over what it finds",
    bench=TERRAFORM,
)
def bucket_that_checkov_passes_over(repo: Repo) -> None:
    skip = "  #checkov:skip=CKV_AWS_18:Nobody reads logs\n"
    bucket = f'resource "aws_s3_bucket" "data" {{\n{skip}  bucket = var.name\n}}\n'
    repo.write("infra/registry/main.tf", f"{repo.text('infra/registry/main.tf')}\n{bucket}")


# -- good ones -------------------------------------------------------------------------------------


@good()
def better_model(repo: Repo) -> None:
    repo.propose(repo.candidate(4, 0.98))


@good("signed")
def better_model_that_is_signed(repo: Repo) -> None:
    repo.propose(signed(repo.candidate(4, 0.98), KEY))


@good("strict", healthy_for(30))
def promotion_of_what_served_long_enough(repo: Repo) -> None:
    promote(repo)


@good()
def promotion_of_which_nobody_needs_to_know(repo: Repo) -> None:
    promote(repo)


@good()
def rollback_of_staging(repo: Repo) -> None:
    repo.write(STAGING, earlier(repo, 2))


@good()
def rollback_of_production(repo: Repo) -> None:
    repo.write(PRODUCTION, earlier(repo, 1, PRODUCTION))


@good()
def more_replicas(repo: Repo) -> None:
    repo.edit(OVERLAY, '"value": 1', '"value": 2')


@good("strict")
def cluster_kind_that_the_base_accepts(repo: Repo) -> None:
    kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 10}
    content = yaml.safe_dump(kind | {"metadata": {"name": "serving"}})
    repo.write("argocd/environments/staging/priority.yaml", content)
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - priority.yaml\n")


def add_to_staging(repo: Repo, kind: str, **content: object) -> None:
    document = {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "added"}}
    repo.write("argocd/environments/staging/added.yaml", yaml.safe_dump(document | content))
    repo.edit(OVERLAY, "  - model.yaml\n", "  - model.yaml\n  - added.yaml\n")


@good()
def kind_whose_template_makes_no_pods(repo: Repo) -> None:
    template = {"metadata": {"name": "added"}, "type": "Opaque"}
    add_to_staging(repo, "SealedSecret", spec={"encryptedData": {"a": "b"}, "template": template})


@good()
def kind_whose_spec_is_a_list(repo: Repo) -> None:
    add_to_staging(repo, "Listed", spec=["template"])


@good()
def new_pictures(repo: Repo) -> None:
    repo.write("data/splits.csv", repo.text("data/splits.csv") + "00000000000000aa,train\n")


@good()
def other_parameters(repo: Repo) -> None:
    repo.edit("params.yaml", "epochs: 3", "epochs: 9")


@good()
def code_that_passes(repo: Repo) -> None:
    repo.write("src/classifier/networks.py", "LAYERS = 3\n")


@good(bench=TERRAFORM)
def infrastructure(repo: Repo) -> None:
    repo.edit("infra/registry/main.tf", '"Name."', '"Name of the registry."')


@good("later")
def next_training_run(repo: Repo) -> None:
    repo.write(RUN_FILE, run(2).to_yaml())


@good(bench=LINTERS)
def labels_of_issues(repo: Repo) -> None:
    repo.write(".github/labels.yml", "- {name: rollback, color: red}\n")


@good(bench=LINTERS)
def workflow_that_does_more(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "make lint test")


@good("strict", bench=LINTERS)
def comment_to_a_linter_that_the_base_accepts(repo: Repo) -> None:
    repo.edit(WORKFLOW, "make lint", "make lint # zizmor: ignore[template-injection]")


@good()
def lower_floor_by_itself(repo: Repo) -> None:
    repo.edit("params.yaml", "min_accuracy: 0.9", "min_accuracy: 0.8")


@good()
def text(repo: Repo) -> None:
    repo.write("README.md", "# Digits\n\nMore.\n")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory):
    folder, before = tmp_path_factory.mktemp("pull-requests"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.chdir(folder)
        yield make_repository(folder)
    assert Path.cwd() == before


def judged(repo: Repo, case: Case, work: Path) -> Verdict:
    return repo.judged(case.change, work / "work", case.bench, case.base)


VERDICTS: dict[Change, Verdict] = {}


def judged_once(repo: Repo, case: Case, work: Path) -> Verdict:
    """The verdict on a case, which two tests look at."""
    if case.change not in VERDICTS:
        VERDICTS[case.change] = judged(repo, case, work)
    return VERDICTS[case.change]


def numbered(repo: Repo, place: str) -> str:
    """Put the number of a line for `line of <its text>`, of files that change now and then."""
    path, of, text = place.partition(", line of ")
    lines = repo.text(path).splitlines() if of else []
    found = [str(number) for number, line in enumerate(lines, 1) if text in line]
    return f"{path}, line {found[0]}:" if found else place


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pull_request_is_refused_with_its_line(repo: Repo, name: str, tmp_path: Path) -> None:
    case = BAD[name]
    verdict = judged_once(repo, case, tmp_path)
    said = [*map(str, verdict.findings), *verdict.undone]
    assert not verdict.passed
    place = numbered(repo, case.place)
    assert any(each.startswith(place) and case.sentence in each for each in said), said


@pytest.mark.parametrize("name", GOOD)
def test_a_good_pull_request_passes(repo: Repo, name: str, tmp_path: Path) -> None:
    verdict = judged_once(repo, GOOD[name], tmp_path)
    assert verdict.passed, [*map(str, verdict.findings), *verdict.undone]


def test_the_readme_s_picture_names_what_a_release_is_judged_by(repo: Repo, tmp_path: Path) -> None:
    parts = [each.name for each in judged_once(repo, GOOD["better_model"], tmp_path).parts]
    picture = (TEMPLATE / "docs/loop.svg").read_text()
    (checks,) = re.findall(r">checks: ([a-z, ]+)<", picture)
    for check in [*checks.split(", "), *re.findall(r">(rehearsal) on a real Triton<", picture)]:
        parts.remove(next(each for each in parts if check in each))
    assert parts == ["release file"], "which is drawn above them"


def test_there_are_enough_of_each() -> None:
    assert len(BAD) >= 40 and len(GOOD) >= 10
    assert sum(name.startswith("harmless_") for name in BAD) >= 10


COMPLAINTS = {  # what programs print of a line that is wrong, and how it is told
    "ruff": (
        "F401 [*] `os` imported but unused\n --> src/a.py:3:8\n  |\n3 | import os\n",
        ("src/a.py", 3, "F401 [*] 'os' imported but unused"),
    ),
    "ruff's format": (
        "unformatted: File would be reformatted\n --> src/a.py:1:6\n",
        ("src/a.py", 1, "unformatted: File would be reformatted"),
    ),
    "mypy": (
        "src/a.py:6: error: Incompatible return value type  [return-value]\nFound 1 error\n",
        ("src/a.py", 6, "error: Incompatible return value type [return-value]"),
    ),
    "yamllint": (
        "./c.yaml\n  4:5       error    too many spaces after colon  (colons)\n",
        ("c.yaml", 4, "too many spaces after colon"),
    ),
    "yamllint on GitHub": (
        "::group::./c.yaml\n::error file=./c.yaml,line=4,col=5::4:5 [colons] too many spaces\n",
        ("c.yaml", 4, "[colons] too many spaces"),
    ),
    "pytest": (
        ">       assert double(2) == 5\nE       assert 4 == 5\n\nsrc/a.py:5: AssertionError\n",
        ("src/a.py", 5, "AssertionError"),
    ),
    "nothing of ours": (
        "make: *** [Makefile:9: lint] Error 1\n",
        ("", 1, "make: *** [Makefile:9: lint] Error 1"),
    ),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_the_first_complaint_of_a_program_is_told_with_its_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for path in ("src/a.py", "c.yaml"):
        (tmp_path / path).touch()
    printed, told = COMPLAINTS[name]
    assert programs.blamed(printed, tmp_path) == told


TOLD_OF_THE_MACHINE = {
    "http_proxy": "http://proxy:3128",
    "LC_ALL": "C.UTF-8",
    "REQUESTS_CA_BUNDLE": "/etc/ssl/ours.pem",
    "UV_CACHE_DIR": "/tmp/uv",
}
# Of CI: credentials, and the files by which a step sets what the next ones have.
OPENS_DOORS = """
ACTIONS_ID_TOKEN_REQUEST_URL AWS_SECRET_ACCESS_KEY CI_JOB_TOKEN CI_REPOSITORY_URL DOCKER_AUTH_CONFIG
GH_TOKEN GITHUB_ENV GITHUB_OUTPUT GITHUB_PATH GIT_PUSH_URL MLFLOW_TRACKING_URI SIGNING_PEM
SSH_AUTH_SOCK TF_VAR_password UV_PUBLISH_TOKEN
""".split()


def test_a_program_of_the_head_is_told_of_the_machine_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TOLD_OF_THE_MACHINE.items():
        monkeypatch.setenv(name, value)
    for name in (*OPENS_DOORS, "MAKEFLAGS", "VENV"):
        monkeypatch.setenv(name, "https://ci:secret@example.com")
    printed = programs.run(["env"], tmp_path).printed
    told = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert told.items() >= TOLD_OF_THE_MACHINE.items()
    assert told["PATH"] == os.environ["PATH"]
    assert "secret" not in printed


def test_how_many_tests_passed_is_told_in_pytest_s_words_only() -> None:
    assert programs.counted("== 3 passed, 1 skipped in 2.0s ==") == ": 3 passed, 1 skipped"
    assert programs.counted("3 passed </details> @example/owners: merge it in 2.0s") == ""


# -- the report and the command --------------------------------------------------------------------

REPORTS = Path(__file__).parent / "check_reports"
TOLD = {
    "good": GOOD["better_model"],
    "refused": BAD["harmless_worse_than_what_is_served"],
    "promotion": GOOD["promotion_of_what_served_long_enough"],
    "rollback": GOOD["rollback_of_production"],
    "manifests": GOOD["more_replicas"],
    "infrastructure": GOOD["infrastructure"],
    "judge": GOOD["lower_floor_by_itself"],
}


def steady(text: str) -> str:
    """Put the same digits and times in place of those that differ from run to run."""
    digits = "0123456789abcdef" * 4
    text = re.sub(r"\b[0-9a-f]{12,64}\b", lambda found: digits[: len(found[0])], text)
    text = re.sub(r"since \d{4}-\d\d-\d\d \d\d:\d\d UTC", "since 2026-11-25 06:00 UTC", text)
    text = re.sub(r"(?ms)^```diff$.*?^```$", without_context, text)
    return re.sub(r"(?m)\d+\.\d \|$", "0.1 |", text)


def without_context(diff: re.Match[str]) -> str:
    """Keep the lines that differ: those around them are the manifests', which change."""
    return "\n".join(line for line in diff[0].splitlines() if line[:1] in "+-`")


ODD = ("é.yaml", 'a "b".yaml', "tab\tand\nline.yaml", "back\\303\\slash.yaml", "\udcff.yaml")
SETTINGS_OF_DIFFS = {
    "diff.interHunkContext": "20",
    "diff.context": "9",
    "diff.noprefix": "true",
    "diff.external": "false",
    "color.ui": "always",
    "core.quotePath": "false",
}


def test_new_lines_are_found_whatever_files_are_called_and_git_is_set_to(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        people = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", *people, *arguments], cwd=tmp_path, check=True)

    git("init", "--quiet")
    for marks in ("", "!"):
        text = "".join(f"{each}{marks if each in (3, 9) else ''}\n" for each in range(1, 12))
        for name in ODD:
            (tmp_path / name).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "-m", "Change")
    (tmp_path / ".git/info/attributes").write_text("*.yaml -diff\n")
    for name, value in SETTINGS_OF_DIFFS.items():
        git("config", name, value)
    changes = read_changes(Repository(tmp_path), "HEAD~1", "HEAD")
    assert changes.added == {name: {3: "3!", 9: "9!"} for name in ODD}


@pytest.mark.parametrize("name", TOLD)
def test_the_report_of_each_kind_is_what_was_looked_at(
    repo: Repo, name: str, tmp_path: Path
) -> None:
    told, golden = steady(report(judged_once(repo, TOLD[name], tmp_path))), REPORTS / f"{name}.md"
    (tmp_path / golden.name).write_text(told)
    assert told == golden.read_text(), f"look at it, then: cp {tmp_path / golden.name} {golden}"
    unfolded = re.sub(r"(?s)<details>.*?</details>", "", told)
    assert len(unfolded.splitlines()) < 40


def test_the_command_says_what_is_refused_where_and_writes_the_report(
    repo: Repo, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = BAD["image_in_a_foreign_registry"]
    judged(repo, case, tmp_path)
    assert main(["check", "--base", "main"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: refused (report: .local/reports/check.md)\n  - ")
    assert f"  - {case.place}: {case.sentence}" in said
    text = (repo.folder / ".local/reports/check.md").read_text()
    assert text.startswith("# Release of model 4 to staging: refused\n\n**Refused for:**\n- ")
    judged(repo, GOOD["text"], tmp_path / "other")
    assert main(["check", "--base", "main", "--report", str(tmp_path / "report.md")]) == 0
    assert capsys.readouterr().out.startswith("passed: nothing to judge (report: ")
    assert (tmp_path / "report.md").read_text().startswith("# Change of texts: passed\n")


def test_pictures_that_change_are_named_and_lie_beside_the_report(
    repo: Repo, tmp_path: Path
) -> None:
    def change(repo: Repo) -> None:
        for number in range(6):
            repo.write(f"plots/{number}.svg", "<svg/>")
        (repo.folder / "plots/link.svg").symlink_to("/etc/passwd")
        repo.write("plots/huge.png", " " * (LARGEST + 1))

    verdict = judged(repo, Case(change, "", ""), tmp_path)
    named = ", ".join(f"`plots/{number}.svg`" for number in range(5))
    assert f"\n\nPictures that change: {named} and 1 more.\n\n" in report(verdict)
    main(["check", "--base", "main"])
    kept = repo.folder / ".local/reports/pictures"
    assert {each.name for each in kept.iterdir()} == {f"{n + 1}-plots-{n}.svg" for n in range(6)}
    assert (kept / "6-plots-5.svg").read_text() == "<svg/>"
    main(["check", "--base", "main", "--head", "main"])
    assert not kept.exists()


def test_pictures_lie_beside_the_report_whatever_they_are_called(
    repo: Repo, tmp_path: Path
) -> None:
    long = f"plots/{'deep/' * 60}end.png"
    odd = ("a-b.svg", "a/b.svg", 'c:"d".svg', long)

    def change(repo: Repo) -> None:
        for name in odd:
            repo.write(name, name)

    assert judged(repo, Case(change, "", ""), tmp_path).passed
    assert main(["check", "--base", "main"]) == 0
    kept = [*(repo.folder / ".local/reports/pictures").iterdir()]
    assert {each.read_text() for each in kept} == {*odd}
    for each in kept:  # as an artifact of CI may be called, and within what a file system takes
        assert re.fullmatch(r"[1-4]-[\w.-]{1,100}", each.name, re.ASCII)


def test_a_review_that_is_proposed_breaks_no_report(repo: Repo, tmp_path: Path) -> None:
    hostile = "# Passed\n\n```\n</details>\n\n@example/owners: merge it\n"

    def change(repo: Repo) -> None:
        repo.write("reviews/june.md", hostile + "picture\n" * LONGEST)
        repo.git("rm", "--quiet", "reviews/may.md")

    repo.git("checkout", "--quiet", "-b", "reviewed", "main")
    repo.write("reviews/may.md", "# May\n")
    repo.commit("Review a batch")
    told = report(judged(repo, Case(change, "", "", "reviewed"), tmp_path))
    shown = hostile + "picture\n" * (LONGEST - 6) + "… and 6 lines more\n"
    title = "review of the batch: reviews/june.md"
    folded = f"<details><summary>{title}</summary>\n\n````markdown\n{shown}````\n\n</details>\n"
    assert folded in told and "may.md" not in told


def test_what_git_cannot_merge_is_named_and_can_be_brought_up_to_date(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    repo.git("checkout", "--quiet", "--force", "--detach", "main~1")
    repo.git("clean", "--quiet", "-fd")
    repo.write(STAGING, earlier(repo, 1))
    proposed = repo.commit()
    assert main(["check", "--base", "main"]) == 1
    assert f"error: {STAGING}, line 1: the base changed it, too" in capsys.readouterr().err
    assert (repo.folder / ".local/reports/check.md").read_text().startswith("# Not judged\n")
    repo.git("merge", "--quiet", "--strategy=ours", "-m", "Bring it up to date", "main")
    assert read_changes(repo.repository, "main", "HEAD").files[0].path == STAGING
    assert proposed != repo.git("rev-parse", "HEAD")


def test_a_base_that_is_not_here_is_named_and_another_is_given(
    repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--head", "main"]) == 1
    assert "'origin/main' is no commit of this repository: `git fetch" in capsys.readouterr().err
    assert main(["check", "--base", "main", "--head", "main"]) == 0


def test_a_branch_that_is_behind_is_judged_by_what_its_merge_changes(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--force", "--detach", "main~3")
    repo.git("clean", "--quiet", "-fd")
    repo.write("README.md", "# Other digits\n")
    repo.commit()
    assert [each.path for each in read_changes(repo.repository, "main", "HEAD").files] == [
        "README.md"
    ]


def test_who_changes_the_judge_is_told_so_first(repo: Repo, tmp_path: Path) -> None:
    def change(repo: Repo) -> None:
        repo.write("src/delivery/gate.py", "FLOOR = 0.1\n")

    verdict = judged(repo, Case(change, "", ""), tmp_path)
    notice = report(verdict).split("\n\n")[1]
    assert notice.startswith("> **It changes what judges pull requests: `src/delivery/gate.py`.**")
    assert "is its own" in notice and "An owner (@example/owners) has to review it." in notice


@pytest.mark.parametrize("path", ["signing.pub", "infra/.checkov.yaml", "zizmor.yml"])
def test_who_changes_what_the_judge_goes_by_is_told_so(
    repo: Repo, path: str, tmp_path: Path
) -> None:
    def change(repo: Repo) -> None:
        repo.write(path, "another\n")

    notice = report(judged(repo, Case(change, "", "", "signed"), tmp_path)).split("\n\n")[1]
    assert notice.startswith(f"> **It changes what judges pull requests: `{path}`.**")


# Prints all that is loaded for `make check`, with what its modules import late
# except DVC, which only makes models again.
LOADS = """
import ast, importlib, sys
import delivery.commands.check
seen = set()
while new := {each for each in sys.modules if each.startswith(("delivery", "workspace"))} - seen:
    seen |= new
    trees = [ast.parse(open(sys.modules[name].__file__).read()) for name in new]
    for node in (node for tree in trees for node in ast.walk(tree)):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            name.startswith("dvc") or importlib.import_module(name)
print(*sys.modules)
"""


def test_the_judge_needs_a_few_of_the_project_s_packages_and_no_torch() -> None:
    described = tomllib.loads((UNBAKED / "pyproject.toml").read_text())
    group = described["dependency-groups"]["delivery"]
    assert set(group) <= set(described["project"]["dependencies"])
    command = [sys.executable, "-c", LOADS]
    path = os.environ | {"PYTHONPATH": str(TEMPLATE)}
    done = subprocess.run(command, env=path, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    named = {re.split(r"[\[>]", each)[0] for each in described["project"]["dependencies"]}
    packages = packages_distributions()
    found = {name for top in loaded for name in packages.get(top, ())}
    asked = {re.split(r"[\[>]", each)[0] for each in group}
    assert {name.lower() for name in found} & named == asked


# -- on the real Triton ----------------------------------------------------------------------------


def test_a_release_is_rehearsed_on_the_real_triton(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setattr(load, "SECONDS", 0.05)
    monkeypatch.setattr(rehearsal, "LOADS", load.LOADS[:1])
    repo = make_repository(tmp_path, {})
    repo.git("checkout", "--quiet", "main")
    repo.propose(tiny(repo, 1))
    repo.commit("Release model 1")
    repo.git("checkout", "--quiet", "-b", "proposed")
    repo.propose(tiny(repo, 2))
    repo.commit("Release model 2")
    assert main(["check", "--base", "main"]) == 0, capsys.readouterr().err
    text = Path(".local/reports/check.md").read_text()
    assert "Rehearsed on the real Triton: 13 of 13 checks passed; 70 of 70 golden answers" in text
    assert "(model 2) beside " in text
    repo.git("checkout", "--quiet", "-B", "proposed", "main")
    repo.propose(tiny(repo, 2, answers=1))
    repo.commit("Release model 2")
    assert main(["check", "--base", "main"]) == 1
    said = capsys.readouterr().err
    assert f"  - {STAGING}, line 7: http, batches of 1: " in said and "of 70 golden answers" in said


def tiny(repo: Repo, version: int, answers: int | None = None) -> Release:
    """Package a model that Triton can serve, perhaps with the golden answers of another one."""
    repo.train(0.97)
    named = repo.text("artifacts/predictions.csv").replace(",zero", ",class 0")
    repo.write("artifacts/predictions.csv", named.replace(",one", ",class 1"))
    model = repo.folder / "artifacts/model"
    shutil.rmtree(model)
    write_repository(model, seed=version)
    if answers is not None:
        other = write_repository(repo.folder / ".local/other", seed=answers)
        shutil.copy(other / "classifier/golden.npz", model / "classifier")
    return repo.packaged(version)
