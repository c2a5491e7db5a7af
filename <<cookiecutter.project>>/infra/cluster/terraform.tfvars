project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"

# Who administers the cluster: ARNs of IAM roles or users. `aws sts get-caller-identity` shows yours.
admins = []

# Who reaches the cluster's API: addresses over the internet, for example ["203.0.113.7/32"], and ranges
# of networks that are connected to the cluster's (VPN, bastion, peering), for example ["10.8.0.0/22"].
endpoint_cidrs = []
private_cidrs  = []

# GPUs that Git asks for: staging 1, production 2, one more while a version changes, and 2 for a training
# run are 6. `max` is in nodes: fewer GPUs than that, and something waits for ever.
gpu_node_groups = {
  gpu = { instance_types = ["<<cookiecutter.gpu_instance_type>>"], max = 6 }
}
