"""Take away what Argo CD runs for this project, then Argo CD: `take_down.py <kubectl context>`.

In an order that ends: first what would make things anew, then what serves and trains while its
controllers still live, then the controllers while Argo CD still lives, and Argo CD itself last.
Each step looks for what is there, so a run that was interrupted is continued by the next. What
somebody else put there stays, and is named.

kubectl and the standard library only: it must work where the project's packages are not.
"""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from failures import InfraError, reported, run

ARGOCD = Path("argocd").absolute()  # of the project, in whose root make runs this
REPOSITORY = re.compile(r'repoURL: "?[^"\s]*?([^/"\s]+?)(?:\.git)?"?$', re.MULTILINE)  # its name
OVERLAY = re.compile(r'^namespace: *"?([a-z0-9-]+)"? *$', re.MULTILINE)
OF_TRAINING = "training/kustomization.yaml"
NAMESPACE = "argocd"
OWN = "argo-cd"  # the Application that manages Argo CD itself
FINALIZER = "resources-finalizer.argocd.argoproj.io"  # makes an Application take its objects along
TRACKED = "argocd.argoproj.io/tracking-id"  # begins with the name of an object's Application
MARK = "take-down"  # annotation of Argo CD's namespace: which project's way down has begun
NO_KIND = (  # kubectl's words where nothing is left of a kind, not even its name
    "the server doesn't have a resource type",
    "the server could not find the requested resource",
)
GOING = (  # and where an Application is on its way out, or has just gone
    "(NotFound)",
    "no new finalizers can be added if the object is being deleted",
)
EVERYWHERE = ("applications.argoproj.io", "--all-namespaces", "--output=name")
PATIENCE = "--timeout=15m"  # of Argo CD, for all that it takes away in one step


class SilenceError(InfraError):
    """The cluster did not answer, or refused; `reason` is kubectl's."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Cluster:
    """The cluster behind one of kubectl's contexts."""

    context: str

    def command(self, *arguments: str) -> list[str]:
        """Return a command that asks it."""
        return ["kubectl", "--context", self.context, *arguments]

    def ask(self, *arguments: str) -> str:
        """Return what kubectl prints; nothing for a kind that there is not. Raises SilenceError."""
        result = run(self.command("--request-timeout=20s", *arguments), capture_output=True)
        if result.returncode and not any(words in result.stderr for words in NO_KIND):
            reason = " ".join(result.stderr.split())
            raise SilenceError(
                f"kubectl {arguments[0]} {arguments[1]} failed in {self.context} ({reason}): "
                "put that right, and the same command continues",
                reason,
            )
        return result.stdout

    def find(self, kind: str, *options: str) -> list[dict[str, Any]]:
        """Return the objects of a kind. Raises InfraError."""
        text = self.ask("get", kind, *options, "--output=json")
        try:
            return json.loads(text)["items"] if text else []
        except (ValueError, RecursionError):
            raise InfraError(
                f"kubectl get {kind} broke off in {self.context}: run the same command again"
            ) from None

    def delete(self, kinds: str, *options: str) -> None:
        """Delete in the terminal, and wait until it is gone. Raises InfraError."""
        command = self.command("delete", kinds, *options, "--ignore-not-found", PATIENCE)
        if run(command).returncode:
            raise InfraError(
                f"kubectl could not delete {kinds} in {self.context}: its message is above; "
                "put that right, and the same command continues"
            )


def take_down(context: str) -> None:
    """Take away all that is this project's, and Argo CD unless it runs others'.

    Raises InfraError, and then the same call continues.
    """
    cluster, project = Cluster(context), project_name()
    if not begin(cluster, project):
        say(f"nothing of {project} is in {context}")
        return
    stop(cluster, project)
    first = [each for each in applications(cluster, project) if each[1] != "platform"]
    remove(cluster, "what serves and trains", [name for name, _ in first])
    remove_namespaces(cluster, overlays())
    rest = [name for name, _ in applications(cluster, project) if name != OWN]
    remove(cluster, "the platform", rest)
    remove_namespaces(cluster, destinations(cluster, project))
    remove_definitions(cluster)
    remove_argo_cd(cluster, project)


def say(step: str) -> None:
    """Show which step begins."""
    print(f"-- {step}", flush=True)


def project_name() -> str:
    """Return the name that this project's repository has in Argo CD. Raises InfraError."""
    path = ARGOCD / "root.yaml"
    found = REPOSITORY.search(path.read_text())
    if not found:
        raise InfraError(f"{path} has no line `repoURL: <address>`: restore it from Git")
    return found[1]


def overlays() -> list[str]:
    """Return the namespaces of this project's environments and of its training."""
    files = [*ARGOCD.glob("environments/*/kustomization.yaml"), *ARGOCD.glob(OF_TRAINING)]
    return sorted({name for file in files for name in OVERLAY.findall(file.read_text())})


def begin(cluster: Cluster, project: str) -> bool:
    """Tell whether something is there, and note whose it is: soon nothing else will know."""
    (found,) = cluster.find("namespaces", f"--field-selector=metadata.name={NAMESPACE}") or [None]
    if not found:
        return False
    marked = found["metadata"].get("annotations", {}).get(MARK) == project
    if not marked and not app_projects(cluster, project):
        return False
    say(f"taking {project} down in {cluster.context}")
    cluster.ask("annotate", f"namespaces/{NAMESPACE}", f"{MARK}={project}", "--overwrite")
    return True


def app_projects(cluster: Cluster, project: str) -> dict[str, dict[str, Any]]:
    """Return Argo CD's projects that read this project's repository, by name."""
    found = cluster.find("appprojects.argoproj.io", f"--namespace={NAMESPACE}")
    return {
        each["metadata"]["name"]: each["spec"]
        for each in found
        if any(
            address.removesuffix(".git").endswith(f"/{project}")
            for address in each["spec"].get("sourceRepos", [])
        )
    }


def applications(cluster: Cluster, project: str) -> list[tuple[str, str]]:
    """Return the Applications of this project, each with that of Argo CD's projects it is in."""
    ours = app_projects(cluster, project)
    found = cluster.find("applications.argoproj.io", f"--namespace={NAMESPACE}")
    return [
        (each["metadata"]["name"], each["spec"]["project"])
        for each in found
        if each["spec"]["project"] in ours
    ]


def stop(cluster: Cluster, project: str) -> None:
    """Take away what makes Applications anew, and leave the Applications."""
    ours = app_projects(cluster, project)
    roots = [name for name, owner in applications(cluster, project) if owner == "root"]
    sets = [
        each["metadata"]["name"]
        for each in cluster.find("applicationsets.argoproj.io", f"--namespace={NAMESPACE}")
        if each["spec"]["template"]["spec"]["project"] in ours
    ]
    if roots or sets:
        say("what makes Applications, so that nothing comes back")
    forget(cluster, roots)
    if sets:
        place = f"--namespace={NAMESPACE}"
        cluster.delete("applicationsets.argoproj.io", *sets, place, "--cascade=orphan")


def forget(cluster: Cluster, names: list[str]) -> None:
    """Take Applications away without what they made."""
    for name in names:
        patch(cluster, name, {"metadata": {"finalizers": None}})
    if names:
        cluster.delete("applications.argoproj.io", *names, f"--namespace={NAMESPACE}")


def remove(cluster: Cluster, what: str, names: list[str]) -> None:
    """Have Argo CD take Applications away with all that they made. Raises InfraError."""
    if not names:
        return
    say(f"{what}: {', '.join(names)}")
    for name in names:
        # What it is doing goes first: an Application that syncs, or tries to, is not taken away.
        patch(cluster, name, {"operation": None, "spec": {"syncPolicy": {"automated": None}}})
        patch(cluster, name, {"metadata": {"finalizers": [FINALIZER]}})
    try:
        cluster.delete("applications.argoproj.io", *names, f"--namespace={NAMESPACE}")
    except InfraError:
        raise InfraError(
            f"Argo CD did not take away {', '.join(names)} in 15 minutes: "
            f"`kubectl --namespace {NAMESPACE} describe applications {names[0]}` says what it "
            "waits for; put that right, and the same command continues"
        ) from None


def patch(cluster: Cluster, name: str, change: dict[str, Any]) -> None:
    """Change an Application, unless it goes already. Raises SilenceError."""
    command = ["patch", f"applications.argoproj.io/{name}", f"--namespace={NAMESPACE}"]
    try:
        cluster.ask(*command, "--type=merge", f"--patch={json.dumps(change)}")
    except SilenceError as error:
        if not any(words in error.reason for words in GOING):
            raise


def destinations(cluster: Cluster, project: str) -> list[str]:
    """Return the namespaces that the platform's own charts may use, without Kubernetes' own."""
    places = app_projects(cluster, project).get("platform", {}).get("destinations", [])
    names = sorted({each["namespace"] for each in places})
    return [name for name in names if name != NAMESPACE and not name.startswith("kube-")]


def remove_namespaces(cluster: Cluster, names: list[str]) -> None:
    """Delete those of the namespaces in which nothing of anybody else's runs."""
    there = {each["metadata"]["name"] for each in cluster.find("namespaces")}
    empty = []
    for name in sorted(there & set(names)):
        place = f"--namespace={name}"
        # the last pods and their disks may be on their way out; what else is there, is said below
        leaving = ("wait", "pods,persistentvolumeclaims", "--all", "--for=delete")
        run(cluster.command(*leaving, place, "--timeout=2m"), capture_output=True)
        left = cluster.ask("get", "all,persistentvolumeclaims", place, "--output=name").split()
        if left:
            say(f"the namespace {name} stays, with what is not from Git: {', '.join(left)}")
        else:
            say(f"the namespace {name}")
            empty.append(name)
    if empty:  # together, because each takes a while
        cluster.delete("namespaces", *empty)


def remove_definitions(cluster: Cluster) -> None:
    """Delete the kinds that Argo CD made for Applications that are gone, and nobody uses."""
    here = {
        each["metadata"]["name"]
        for each in cluster.find("applications.argoproj.io", "--all-namespaces")
    }
    found = {
        f"{each['spec']['names']['singular']}.{each['spec']['group']}": each["metadata"]["name"]
        for each in cluster.find("customresourcedefinitions")
        if (tracked := each["metadata"].get("annotations", {}).get(TRACKED))
        and tracked.partition(":")[0] not in here
    }
    if not found:
        return
    left = cluster.ask("get", ",".join(found.values()), "--all-namespaces", "--output=name").split()
    used = {kind for kind in found if any(each.startswith(f"{kind}/") for each in left)}
    if used:
        say(f"kinds that are in use stay: {', '.join(sorted(used))}")
    if unused := sorted(name for kind, name in found.items() if kind not in used):
        say("the kinds that its controllers knew")
        cluster.delete("customresourcedefinitions", *unused)


def remove_argo_cd(cluster: Cluster, project: str) -> None:
    """Delete Argo CD, unless it runs something else: then only what it knew of this project."""
    forget(cluster, [name for name, _ in applications(cluster, project) if name == OWN])
    others = cluster.ask("get", *EVERYWHERE).split()
    if others:
        say(f"Argo CD stays, because it runs {', '.join(others)}")
        if ours := list(app_projects(cluster, project)):
            cluster.delete("appprojects.argoproj.io", *ours, f"--namespace={NAMESPACE}")
        cluster.ask("annotate", f"namespaces/{NAMESPACE}", f"{MARK}-")
        return
    say("Argo CD itself")
    part = "--selector=app.kubernetes.io/part-of=argocd"
    cluster.delete("customresourcedefinitions,clusterroles,clusterrolebindings", part)
    cluster.delete("namespaces", NAMESPACE)
    say(f"nothing of {project} is left in {cluster.context}")


def main(argv: list[str] | None = None) -> int:
    """Take the project down in the context that is given; return the exit status."""
    (context,) = sys.argv[1:] if argv is None else argv
    return reported(lambda: take_down(context))


if __name__ == "__main__":
    sys.exit(main())
