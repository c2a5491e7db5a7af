output "settings" {
  description = "What workflows and DVC read: one line each in ../outputs.env; REGISTRY also goes to params.yaml."
  value = merge(
    {
      REGISTRY          = module.registry.address
      TRAINING_REGISTRY = module.training_registry.address
      DATA_URL          = "s3://${module.data_store.bucket}/dvc"
    },
    { for cache in module.image_cache : "IMAGE_CACHE" => cache.address },
  )
}
