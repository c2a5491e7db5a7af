"""What is in a model image: the pipeline's account, golden answers, lineage, differences."""
