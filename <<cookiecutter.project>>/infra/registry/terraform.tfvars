project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"
