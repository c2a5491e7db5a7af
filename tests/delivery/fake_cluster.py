"""docker, kind and kubectl as far as `make cluster` needs them: what they made is in a file.

What only reads settings or folders is asked of the real kubectl. `CLUSTER_FAILS` holds words of
commands, a line for each, that are to fail, the first time. They are programs on the PATH; a test
that has many commands calls them without a process for each, through `in_place`.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("docker", "kind", "kubectl")
DIGEST = f"sha256:{'e' * 64}"
EMPTY: dict[str, Any] = {
    "containers": {},  # name: running, networks
    "clusters": [],  # of kind
    "files": {},  # of nodes
    "objects": {},  # `namespace/kind/name`: document
    "folders": [],  # that were applied
    "told": [],  # commands
    "answers": True,  # the cluster
}
WORKLOADS = {"argocd": "argocd-server", "argo-rollouts": "argo-rollouts"}


def install(folder: Path, real: str, programs: tuple[str, ...] = PROGRAMS) -> Path:
    """Put the programs into a folder; return the file of what they made."""
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "state.json"
    state.write_text(json.dumps(EMPTY))
    for name in programs:
        script = f'#!/bin/sh\nexec {sys.executable} {__file__} {real} {state} {name} "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return state


@contextmanager
def kept(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        state = json.load(stream)
        try:
            yield state
        finally:
            stream.seek(0)
            stream.truncate()
            json.dump(state, stream)


def in_place(file: Path, real: str) -> Callable[..., Any]:
    """Return what stands for `subprocess.run`: these programs without a process."""
    ran = subprocess.run

    def run(command: Any, **options: Any) -> Any:
        name, *words = command
        if name not in PROGRAMS:
            return ran(command, **options)
        try:
            stdin = options.get("input") or ""
            said = obey(file, real, name, words, stdin, options.get("env") or os.environ)
            return subprocess.CompletedProcess(command, 0, f"{said}\n", "")
        except SystemExit as error:
            print(error, file=sys.stderr)
            return subprocess.CompletedProcess(command, 1, "", f"{error}\n")

    return run


def obey(
    file: Path, real: str, name: str, words: list[str], stdin: str, variables: Mapping[str, str]
) -> str:
    with kept(file) as state:
        state["told"].append(" ".join([name, *words]))
        if reason := failing(state, [name, *words]):
            sys.exit(reason)
        if name == "docker":
            return docker(state, words, stdin)
        if name == "kind":
            return kind(state, words, Path(variables.get("KUBECONFIG", "")))
        return kubectl(state, words, real, stdin, variables)


def documents(text: str) -> list[dict[str, Any]]:
    if text.startswith("{"):
        return json.loads(text)["items"]
    import yaml  # only where it is needed: a program starts for each command

    return [*yaml.safe_load_all(text)]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1] if name in words else ""


def docker(state: dict[str, Any], words: list[str], stdin: str) -> str:
    containers = state["containers"]
    match words:
        case ["version", *_]:
            return "29.0.0"
        case ["container", "inspect", "--format", wanted, name]:
            if name not in containers:
                sys.exit(f"Error: No such container: {name}")
            networks = containers[name]["networks"]
            values = {"{{.State.Running}}": str(containers[name]["running"]).lower()}
            values["{{json .NetworkSettings.Networks.kind}}"] = (
                "{}" if "kind" in networks else "null"
            )
            return values.get(wanted, "0123")
        case ["run", *_]:
            if option(words, "--name") in containers:
                sys.exit("docker: Error: Conflict. The name is already in use")
            containers[option(words, "--name")] = {"running": True, "networks": ["bridge"]}
        case ["start", name]:
            containers[name]["running"] = True
        case ["rm", "--force", "--volumes", name]:
            del containers[name]
        case ["network", "connect", network, name]:
            containers[name]["networks"].append(network)
        case ["network", "inspect", *_]:
            return "fc00:f853:ccd:e793::1 127.0.0.1 "
        case ["exec", "--interactive", node, "sh", "-c", command]:
            state["files"][f"{node} {command.rpartition(' ')[2]}"] = stdin
        case ["buildx", "build", *_]:
            answer = {"containerimage.digest": DIGEST}
            Path(option(words, "--metadata-file")).write_text(json.dumps(answer))
            state["built"] = {each.name: each.read_text() for each in Path().iterdir()}
        case _:
            sys.exit(f"docker: unknown {words}")
    return ""


def kind(state: dict[str, Any], words: list[str], file: Path) -> str:
    name = option(words, "--name")
    match words[:2]:
        case ["get", "clusters"]:
            return "\n".join(state["clusters"])
        case ["get", "nodes"]:
            return f"{name}-control-plane"
        case ["create", "cluster"]:
            if name in state["clusters"]:
                sys.exit(f"ERROR: node(s) already exist for a cluster with the name {name!r}")
            state["clusters"].append(name)
            if half := failing(state, [*words, "halfway"]):
                sys.exit(half)
            state["objects"], state["answers"] = {}, True
            settings(name, file)
        case ["export", "kubeconfig"]:
            settings(name, file)
        case ["delete", "cluster"]:
            state["clusters"] = [each for each in state["clusters"] if each != name]
            state["objects"] = {}
            file.unlink(missing_ok=True)
        case _:
            sys.exit(f"kind: unknown {words}")
    return ""


def settings(name: str, file: Path) -> None:
    context = f"kind-{name}"
    text = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "clusters": [{"name": context, "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": context, "user": {}}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(text))


def kubectl(
    state: dict[str, Any],
    words: list[str],
    real: str,
    stdin: str,
    variables: Mapping[str, str],
) -> str:
    if words[0] in ("config", "kustomize"):
        done = subprocess.run([real, *words], env=variables, capture_output=True, text=True)
        return done.stdout if not done.returncode else sys.exit(done.stderr)
    if not state["answers"]:
        sys.exit("The connection to the server was refused")
    objects = state["objects"]
    space = option(words, "--namespace")
    words = [word for word in words if word not in ("--namespace", space)]
    match words:
        case ["get", "--raw=/readyz", *_]:
            return "ok"
        case ["get", "nodes", *_]:
            return "127.0.0.1"
        case ["get", "deployments,statefulsets", *_]:
            return f"deployment.apps/{WORKLOADS[space]}"
        case ["get", kinds, *rest]:
            found = listed(objects, space, kinds.removesuffix("s"), rest)
            return "\n".join(found)
        case ["apply", "--server-side", "--force-conflicts", "--kustomize", folder]:
            state["folders"].append(folder)
            (named,) = documents((Path(folder) / "namespace.yaml").read_text())
            put(objects, named)
        case ["apply", "--server-side", "--force-conflicts", "--filename", "-"]:
            for each in documents(stdin):
                put(objects, each)
        case ["create", "secret", "generic", name, *_]:
            objects[f"{space}/secret/{name}"] = {"value": stdin}
        case ["create", "serviceaccount", name]:
            objects[f"{space}/serviceaccount/{name}"] = {"metadata": {"name": name}}
        case ["create", "--filename=/dev/stdin"]:
            made = json.loads(stdin)
            objects[f"{space}/{made['kind'].lower()}/{made['metadata']['name']}"] = made
        case ["create", "namespace", name]:
            objects[f"/namespace/{name}"] = {"metadata": {"name": name}}
        case ["rollout", "status", *_]:
            return "successfully rolled out"
        case ["delete", "--kustomize", folder, *_]:
            (named,) = documents((Path(folder) / "namespace.yaml").read_text())
            drop(objects, f"/namespace/{named['metadata']['name']}")
        case ["delete", kinds, *names]:
            sort, _, name = kinds.partition("/")
            for each in [name] if name else [each for each in names if each[:2] != "--"]:
                drop(objects, f"{space}/{sort.partition('.')[0].removesuffix('s')}/{each}")
        case _:
            sys.exit(f"kubectl: unknown {words}")
    return ""


def listed(objects: dict[str, Any], space: str, kind: str, rest: list[str]) -> list[str]:
    label = option(rest, "--selector")
    named = rest[0] if rest[0][:2] != "--" else ""
    found = []
    for key, document in objects.items():
        where, sort, name = key.split("/")
        labels = document.get("metadata", {}).get("labels", {})
        fits = not label or labels.get(label.partition("=")[0]) == label.partition("=")[2]
        if (where, sort) == (space, kind) and named in ("", name) and fits:
            found.append(f"{sort}/{name}")
    return found


def put(objects: dict[str, Any], document: dict[str, Any]) -> None:
    """Merge as the server does: labels that others gave stay."""
    metadata = document["metadata"]
    key = f"{metadata.get('namespace', '')}/{document['kind'].lower()}/{metadata['name']}"
    before = objects.get(key, {}).get("metadata", {}).get("labels", {})
    metadata["labels"] = {**before, **metadata.get("labels", {})}
    objects[key] = document


def drop(objects: dict[str, Any], key: str) -> None:
    """Remove an object, and with a namespace all that is in it."""
    _, kind, name = key.split("/")
    for each in [*objects]:
        if each == key or (kind == "namespace" and each.startswith(f"{name}/")):
            del objects[each]


def failing(state: dict[str, Any], words: list[str]) -> str:
    """Return why a command is to fail, once."""
    failed = state.setdefault("failed", [])
    for wanted in os.environ.get("CLUSTER_FAILS", "").splitlines():
        if wanted not in failed and wanted in " ".join(words):
            failed.append(wanted)
            return "error: it was to fail"
    return ""


if __name__ == "__main__":
    real, file, name, *words = sys.argv[1:]
    piped = "" if sys.stdin.isatty() or words[:1] == ["get"] else sys.stdin.read()
    print(obey(Path(file), real, name, words, piped, os.environ))
