"""A stand-in for kubectl, with a cluster in a file in which Argo CD lives as the real one does.

What it is told to keep comes back while who keeps it lives. An Application that goes takes its
objects along if it has the finalizer, its project is there and Argo CD runs, but no namespace and
no definition; without the finalizer they stay. A training job goes only while its operator runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

Object = dict[str, Any]
APPS, SETS = "applications.argoproj.io", "applicationsets.argoproj.io"
PROJECTS, KINDS = "appprojects.argoproj.io", "customresourcedefinitions"
FINALIZER = "resources-finalizer.argocd.argoproj.io"
GROUP = ".example"  # of the kinds that charts bring
TRACKED = "argocd.argoproj.io/tracking-id"
REPOSITORY = "https://github.com/octocat/digits.git"
CHARTS = {"argo-rollouts": "rollouts", "kuberay-operator": "rayjobs"}  # and a kind that each brings
MODELS = ("digits-production", "digits-staging")


def made(kind: str, name: str, namespace: str = "", owner: str = "", **more: Any) -> Object:
    metadata: Object = {"name": name, "namespace": namespace, "annotations": {}, "finalizers": []}
    if owner:
        metadata["annotations"][TRACKED] = f"{owner}:x/{kind}:{namespace}/{name}"
    return {"kind": kind, "metadata": metadata, "owner": owner, **more}


def application(name: str, project: str, namespace: str, finalizers: list[str]) -> Object:
    spec = {"project": project, "destination": {"namespace": namespace}}
    spec["syncPolicy"] = {"automated": {}}
    found = made(APPS, name, "argocd", spec=spec)
    found["metadata"]["finalizers"] = finalizers
    return found


def project(name: str, *namespaces: str, repository: str = REPOSITORY) -> Object:
    places = [{"namespace": each} for each in namespaces]
    spec = {"sourceRepos": [repository, "https://charts.example"], "destinations": places}
    return made(PROJECTS, name, "argocd", spec=spec)


def of_root() -> list[Object]:
    """What the root keeps."""
    return [
        project("models", "digits-*"),
        project("training", "digits-training"),
        project("platform", "argocd", "kube-system", *CHARTS),
        *(
            made(SETS, name, "argocd", spec={"template": {"spec": {"project": project}}})
            for name, project in {
                "models": "models",
                "training": "training",
                "controllers": "platform",
            }.items()
        ),
        application("configs", "platform", "kuberay-operator", []),
        application("argo-cd", "platform", "argocd", []),
    ]


def of_set(name: str) -> list[Object]:
    """What an ApplicationSet keeps."""
    names = {"models": MODELS, "training": ("digits-training",), "controllers": tuple(CHARTS)}[name]
    owner = {"controllers": "platform"}.get(name, name)
    return [application(each, owner, each, [FINALIZER]) for each in names]


def of_application(name: str) -> list[Object]:
    """What an Application keeps."""
    if name in MODELS:
        return [made("namespaces", name, owner=name), made("rollouts", "triton", name, name)]
    if name == "digits-training":
        return [made("namespaces", name, owner=name), made("rayjobs", "train-1", name, name)]
    if name in CHARTS:
        kind = f"{CHARTS[name]}{GROUP}"
        names = {"singular": CHARTS[name].removesuffix("s")}
        definition = made(KINDS, kind, "", name, spec={"names": names, "group": "example"})
        return [made("namespaces", name), made("deployments", name, name, name), definition]
    if name == "argo-cd":
        return [made("namespaces", "argocd"), made("deployments", "argocd", "argocd", name)]
    return []


class World:
    """The objects of a cluster, in a file."""

    def __init__(self, file: Path):
        self.file = file
        self.objects: list[Object] = json.loads(file.read_text()) if file.exists() else []

    def find(self, kind: str, name: str = "", namespace: str = "") -> list[Object]:
        return [
            each
            for each in self.objects
            if each["kind"] == kind.removesuffix(GROUP)
            and name in ("", each["metadata"]["name"])
            and namespace in ("", each["metadata"]["namespace"])
        ]

    def keep(self, objects: list[Object]) -> None:
        for each in objects:
            data = each["metadata"]
            if not self.find(each["kind"], data["name"], data["namespace"]):
                self.objects.append(each)

    def drop(self, objects: list[Object]) -> None:
        gone = [id(each) for each in objects]
        self.objects = [each for each in self.objects if id(each) not in gone]

    def save(self) -> None:
        self.file.write_text(json.dumps(self.objects))

    def live(self) -> None:
        """Let Argo CD do what it does, until nothing changes."""
        before = None
        while before != (before := json.dumps(self.objects)):
            if not self.find("deployments", "argocd"):
                return
            for each in self.find(APPS, "root"):
                self.keep(of_root() if "deleted" not in each else [])
            for each in self.find(SETS):
                self.keep(of_set(each["metadata"]["name"]))
            for each in self.find(APPS):
                self.take(each) if "deleted" in each else self.heal(each)

    def heal(self, app: Object) -> None:
        if app["spec"]["syncPolicy"]["automated"] is not None:
            self.keep(of_application(app["metadata"]["name"]))

    def take(self, app: Object) -> None:
        """Take an Application's objects away, and then itself."""
        if FINALIZER in app["metadata"]["finalizers"]:
            if not self.find(PROJECTS, app["spec"]["project"]):
                return
            name = app["metadata"]["name"]
            stay = ("namespaces", KINDS)
            objects = [x for x in self.objects if x["owner"] == name and x["kind"] not in stay]
            operator = self.find("deployments", "kuberay-operator")
            if any(x["kind"] == "rayjobs" for x in objects) and not operator:
                return
            self.drop(objects)
        self.drop([app])

    def delete(self, found: list[Object], orphan: bool) -> None:
        for each in found:
            each["deleted"] = True
            name = each["metadata"]["name"]
            if each["kind"] == "namespaces":
                self.drop([x for x in self.objects if x["metadata"]["namespace"] == name])
            if each["kind"] == SETS and not orphan:
                self.delete([x for x in self.find(APPS) if x in of_set(name)], False)
            if each["kind"] == KINDS:
                self.drop(self.find(name))
            if not each["metadata"]["finalizers"]:
                self.drop([each])


def listed(objects: list[Object]) -> str:
    """Return their names as kubectl writes them, each on a line."""
    lines = []
    for each in objects:
        kind = each["kind"] + (GROUP if each["kind"] in CHARTS.values() else "")
        name, dot, group = kind.partition(".")
        lines.append(f"{name.removesuffix('s')}{dot}{group}/{each['metadata']['name']}")
    return "\n".join(lines)


def kubectl(world: World, words: list[str]) -> int:
    """Do what kubectl does with a command of the way down; `--context` and its name come first."""
    options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    verb, *rest = [word for word in words[2:] if not word.startswith("--")]  # after the context
    namespace = options.get("namespace", "")
    selected = options.get("field-selector", "").removeprefix("metadata.name=")
    if verb == "wait":
        return 0
    kinds, *names = rest[0].split("/") + rest[1:]
    found = [x for kind in kinds.split(",") for x in world.find(kind, selected, namespace)]
    if kinds.startswith("all,"):
        found = [x for x in world.objects if x["metadata"]["namespace"] == namespace]
        found = [x for x in found if x["kind"] in ("deployments", "pods")]
    if "selector" in options:  # what is part of Argo CD
        found = [x for x in found if x["metadata"]["name"].startswith("argocd")]
    elif names:
        found = [x for x in found if x["metadata"]["name"] in names]
    if verb == "get":
        print(json.dumps({"items": found}) if options["output"] == "json" else listed(found))
    elif verb == "annotate":
        mark = names.pop()
        found[0]["metadata"]["annotations"].pop("take-down", None)
        if not mark.endswith("-"):
            found[0]["metadata"]["annotations"]["take-down"] = mark.partition("=")[2]
    elif verb == "patch":
        change = json.loads(options["patch"])
        finalizers = change.get("metadata", {}).get(
            "finalizers", found[0]["metadata"]["finalizers"]
        )
        found[0]["metadata"]["finalizers"] = finalizers or []
        found[0]["spec"] |= change.get("spec", {})
    elif verb == "delete":
        world.delete(found, options.get("cascade") == "orphan")
        world.live()
        stuck = [x for x in found if x in world.objects]
        print(listed(found), "deleted")
        if stuck:
            print("error: timed out waiting for the condition", file=sys.stderr)
            return 1
    else:
        raise ValueError(f"the way down does not {verb}")
    return 0


def main() -> int:
    world = World(Path(sys.argv[1]))
    world.live()
    status = kubectl(world, sys.argv[2:])
    world.save()
    return status


if __name__ == "__main__":
    sys.exit(main())
