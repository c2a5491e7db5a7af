"""The restricted Pod Security level: the controls of the Kubernetes documentation's page
"Pod Security Standards", baseline's included."""

from typing import Any

Part = dict[str, Any]  # of a manifest

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
SELINUX = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}


def pod_templates(document: Part) -> dict[str, Part]:
    """Return metadata and spec of the pods that any manifest makes, by their part in it."""
    if document["kind"] == "RayJob":
        cluster = document["spec"]["rayClusterSpec"]
        workers = {each["groupName"]: each["template"] for each in cluster["workerGroupSpecs"]}
        submitter = document["spec"]["submitterPodTemplate"]
        return {"head": cluster["headGroupSpec"]["template"], "submitter": submitter} | workers
    if document["kind"] == "AnalysisTemplate":
        jobs = [each for each in document["spec"]["metrics"] if "job" in each["provider"]]
        return {each["name"]: each["provider"]["job"]["spec"]["template"] for each in jobs}
    template = pod_template(document)
    return {"": template} if template else {}


def pod_template(document: Part) -> Part | None:
    """Return the pod's metadata and spec in a manifest of a kind that makes one sort of pod.

    Of kinds that are not Kubernetes' own `spec` may be anything, and `template` another thing's.
    """
    if document["kind"] == "Pod":
        return document
    if document["kind"] == "CronJob":
        return document["spec"]["jobTemplate"]["spec"]["template"]
    spec = document.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    inner = template.get("spec") if isinstance(template, dict) else None
    return template if isinstance(inner, dict) and "containers" in inner else None


def violations(pod: Part) -> set[str]:
    """Return the fields by which a pod's spec breaks the restricted level."""
    found = {key for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)}
    found |= {
        f"volumes.{kind}"
        for volume in pod.get("volumes", [])
        for kind in set(volume) - {"name"} - VOLUMES
    }
    shared = pod.get("securityContext", {})
    found |= {
        "sysctls" for each in shared.get("sysctls", []) if each["name"] not in SYSCTLS
    } | context_violations(shared)
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in pod.get(kind, []):
            found |= container_violations(container, shared)
    return found


def container_violations(container: Part, shared: Part) -> set[str]:
    """Return what a container adds; what it does not say is the pod's."""
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    effective = {key: own.get(key, shared.get(key)) for key in ("runAsNonRoot", "seccompProfile")}
    found = context_violations(own)
    if own.get("privileged"):
        found.add("privileged")
    if own.get("allowPrivilegeEscalation") is not False:
        found.add("allowPrivilegeEscalation")
    if effective["runAsNonRoot"] is not True:
        found.add("runAsNonRoot")
    if (effective["seccompProfile"] or {}).get("type") not in SECCOMP:
        found.add("seccompProfile")
    if "ALL" not in capabilities.get("drop", []):
        found.add("capabilities.drop")
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        found.add("capabilities.add")
    if own.get("procMount", "Default") != "Default":
        found.add("procMount")
    if any(port.get("hostPort") for port in container.get("ports", [])):
        found.add("hostPort")
    return found | probe_violations(container)


def probe_violations(container: Part) -> set[str]:
    """Return whether a probe or a hook asks another host than the pod."""
    lifecycle = container.get("lifecycle", {})
    handlers = [container.get(f"{name}Probe", {}) for name in ("startup", "readiness", "liveness")]
    handlers += [lifecycle.get(name, {}) for name in ("preStop", "postStart")]
    actions = [each.get(action, {}) for each in handlers for action in ("httpGet", "tcpSocket")]
    return {"probe host" for action in actions if action.get("host")}


def context_violations(context: Part) -> set[str]:
    """Return what a pod's and a container's security context have in common."""
    found = set()
    if context.get("runAsUser") == 0:
        found.add("runAsUser")
    if context.get("runAsNonRoot") is False:
        found.add("runAsNonRoot")
    if (context.get("seccompProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP:
        found.add("seccompProfile")
    if (context.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in SECCOMP:
        found.add("appArmorProfile")
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        found.add("hostProcess")
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in SELINUX or selinux.get("user") or selinux.get("role"):
        found.add("seLinuxOptions")
    return found
