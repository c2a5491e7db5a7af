project     = "<<cookiecutter.project>>"
environment = "shared"
region      = "<<cookiecutter.aws_region>>"

# As GitHub's tokens name it. A repository created since 15 July 2026 has numbers in it, which this prints:
#   gh api repos/{owner}/{repo} --jq '"\(.owner.login)@\(.owner.id)/\(.name)@\(.id)"'
github_repository = "<<cookiecutter.github_owner>>/<<cookiecutter.project>>"

# Mails when 80 % of it is spent, and when the month is going to end above it; of the whole account:
#   budget = { usd = 1000, gpu_hours = 400, gpu_instance_types = ["<<cookiecutter.gpu_instance_type>>"], emails = ["you@example.com"] }
budget = null
