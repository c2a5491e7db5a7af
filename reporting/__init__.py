"""Pages and pictures for people, drawn from the files of the pipeline and of reviews."""
