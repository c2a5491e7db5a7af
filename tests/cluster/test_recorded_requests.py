"""What callers reach is asked a recorded request each minute, where an environment wants that."""

from delivered import Delivered, synced
from kubernetes_api import PATIENCE, Object


def was_answered(cron_job: Object) -> bool:
    """Whether a request was answered well."""
    return "lastSuccessfulTime" in cron_job.get("status", {})


def test_a_probe_is_answered_and_goes_with_its_line(delivered: Delivered) -> None:
    release = delivered.serving()
    namespace = delivered.namespace()
    with delivered.having(component="probe"):
        delivered.kubernetes.until("cronjob/probe", bool, namespace)
        ask = ("create", "job", "probe-now", "--from=cronjob/probe", "-n", namespace)
        delivered.kubernetes.kubectl(*ask)  # rather than at the full minute
        delivered.kubernetes.until("cronjob/probe", was_answered, namespace)
        delivered.application(synced)
    gone = ("--for=delete", f"--timeout={PATIENCE}s", "-n", namespace)
    delivered.kubernetes.kubectl("wait", "cronjob/probe", *gone)
    delivered.served(release)
