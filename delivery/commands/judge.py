"""`make judge`: the served model and this one on the same pictures, and what the gate says."""

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.pipeline_outputs import read_outputs
from delivery.model.predictions import SERVED
from delivery.parameters import read_parameters
from delivery.proposals.gate import challenge, check_gate
from delivery.proposals.releases import FIRST, released
from delivery.proposals.texts import describe_contests, describe_interface


def run(repository: Repository) -> None:
    """Fetch what is served, judge it on the present test set, compare. Raises DeliveryError."""
    root = repository.folder
    account, parameters = read_outputs(root), read_parameters(root)
    current = released(repository, repository.fetch(), FIRST)
    if current is None:
        raise DeliveryError(f"{FIRST} has no release yet, so there is nothing to compare with")
    champion = challenge(repository, current, parameters, network=True)
    told = describe_contests("this model", current, champion.rival)
    print(f"{describe_interface(current, champion.rival)}{told}\n")
    if (root / SERVED).exists():
        print(f"answers of model {current.version}: {SERVED}/predictions.csv")
    check_gate(account, parameters, champion)
    print("gate:     would let it pass")
