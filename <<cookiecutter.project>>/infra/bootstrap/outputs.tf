output "backend" {
  description = "Where every root keeps its state: the content of ../backend.hcl."
  value       = "bucket = \"${module.state.bucket}\"\nregion = \"${var.region}\"\n"
}

output "settings" {
  description = "What workflows read: one line each in ../outputs.env."
  value = {
    AWS_REGION       = var.region
    AWS_PLAN_ROLE    = module.ci_identity.role_arns["plan"]
    AWS_APPLY_ROLE   = module.ci_identity.role_arns["apply"]
    AWS_PUBLISH_ROLE = module.ci_identity.role_arns["publish"]
  }
}
