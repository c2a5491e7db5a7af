project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"

# Who administers the cluster: ARNs of IAM roles or users. `aws sts get-caller-identity` shows yours.
admins = []

# Addresses that reach the cluster's API from the internet, for example ["203.0.113.7/32"].
endpoint_cidrs = []

gpu_node_groups = {
  gpu = { instance_types = ["<<cookiecutter.gpu_instance_type>>"] }
}
