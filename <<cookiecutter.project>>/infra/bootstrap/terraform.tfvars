project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"

# As GitHub's tokens name it. A repository created since 15 July 2026 has numbers in it, which this prints:
#   gh api repos/{owner}/{repo} --jq '"\(.owner.login)@\(.owner.id)/\(.name)@\(.id)"'
github_repository = "<<cookiecutter.github_owner>>/<<cookiecutter.project>>"
