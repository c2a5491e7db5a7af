output "names" {
  description = "Names of the budgets, as AWS's console lists them."
  value       = [for budget in aws_budgets_budget.this : budget.name]
}
