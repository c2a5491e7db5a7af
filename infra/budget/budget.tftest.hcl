# Plans the module with a mocked AWS: no network, no account.

mock_provider "aws" {
  override_during = plan
}

variables {
  name               = "digits"
  usd                = 1000
  gpu_hours          = 400
  gpu_instance_types = ["g6.xlarge"]
  emails             = ["platform@example.com"]
}

run "somebody_is_told_of_money_and_of_gpu_hours_before_the_month_is_over" {
  command = plan

  assert {
    condition = { for key, budget in aws_budgets_budget.this : key => "${budget.limit_amount} ${budget.limit_unit} ${budget.time_unit}" } == {
      cost      = "1000 USD MONTHLY"
      gpu-hours = "400 Hrs MONTHLY"
    }
    error_message = jsonencode(aws_budgets_budget.this)
  }

  assert {
    condition     = alltrue([for budget in aws_budgets_budget.this : toset([for told in budget.notification : "${told.notification_type} ${told.threshold}"]) == toset(["ACTUAL 80", "FORECASTED 100"])])
    error_message = jsonencode(aws_budgets_budget.this)
  }

  assert {
    condition     = alltrue(flatten([for budget in aws_budgets_budget.this : [for told in budget.notification : told.subscriber_email_addresses == toset(["platform@example.com"])]]))
    error_message = "nobody is told"
  }

  assert {
    condition     = { for filter in aws_budgets_budget.this["gpu-hours"].cost_filter : filter.name => one(filter.values) } == { InstanceType = "g6.xlarge", UsageTypeGroup = "EC2: Running Hours" }
    error_message = "other hours are counted: ${jsonencode(aws_budgets_budget.this["gpu-hours"].cost_filter)}"
  }
}

run "a_name_that_ends_in_a_hyphen_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "digits-"
  }
}

run "a_budget_of_nothing_is_refused" {
  command         = plan
  expect_failures = [var.usd]

  variables {
    usd = 0
  }
}

run "no_hours_are_refused" {
  command         = plan
  expect_failures = [var.gpu_hours]

  variables {
    gpu_hours = -1
  }
}

run "hours_of_no_type_are_refused" {
  command         = plan
  expect_failures = [var.gpu_instance_types]

  variables {
    gpu_instance_types = []
  }
}

run "a_budget_that_nobody_is_told_of_is_refused" {
  command         = plan
  expect_failures = [var.emails]

  variables {
    emails = []
  }
}
