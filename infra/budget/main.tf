# Mails before a month costs more than it should: nothing is stopped.

locals {
  budgets = {
    cost      = { type = "COST", limit = var.usd, unit = "USD", filters = {} }
    gpu-hours = { type = "USAGE", limit = var.gpu_hours, unit = "Hrs", filters = { UsageTypeGroup = ["EC2: Running Hours"], InstanceType = var.gpu_instance_types } }
  }
}

resource "aws_budgets_budget" "this" {
  for_each = local.budgets

  name         = "${var.name}-${each.key}"
  budget_type  = each.value.type
  limit_amount = tostring(each.value.limit)
  limit_unit   = each.value.unit
  time_unit    = "MONTHLY"

  dynamic "cost_filter" {
    for_each = each.value.filters

    content {
      name   = cost_filter.key
      values = cost_filter.value
    }
  }

  # While there is time left to do something, and when the month's end is known to be above.
  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }

    content {
      notification_type          = notification.key
      threshold                  = notification.value
      threshold_type             = "PERCENTAGE"
      comparison_operator        = "GREATER_THAN"
      subscriber_email_addresses = var.emails
    }
  }
}
