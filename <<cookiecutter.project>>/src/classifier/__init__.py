"""The model: data, networks, training, evaluation and export. It never imports `delivery`."""
