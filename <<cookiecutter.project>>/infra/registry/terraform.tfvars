project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"

# Others' images by way of ECR (README.md, Scale), with an account of Docker Hub in a secret:
#   image_cache = { docker_hub_credential_arn = "arn:aws:secretsmanager:...:secret:ecr-pullthroughcache/docker-hub-..." }
image_cache = null
